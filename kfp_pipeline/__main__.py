"""Makes `python -m kfp_pipeline` the same as the command `spark-kfp`."""

from kfp_pipeline.commands.main import main

if __name__ == "__main__":
    raise SystemExit(main())
