"""The model as a service: plain Python over scorecard.json, no JVM."""
