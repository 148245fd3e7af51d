"""`python -m kfp_pipeline` is `spark-kfp`."""

from kfp_pipeline.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
