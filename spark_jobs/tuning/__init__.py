"""The search of settings: what is tried next, and the fit and judgement of a trial; the step tune joins them."""
