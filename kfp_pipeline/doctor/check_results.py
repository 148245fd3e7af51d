"""The result of one check of `spark-kfp doctor`: ok, missing or unsure, with the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from kfp_pipeline.runtime.errors import StepError
from spark_jobs.errors import InputError


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        name: name of the check.
        ok: True; False if something is missing; None if this is unknown, or if only some runs need what is missing.
        detail: what the check found.
        fix: what the user can do; empty if nothing is missing.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


class CheckFailedError(Exception):
    """Raised by a check that finds something missing, or that cannot tell (`ok=None`)."""

    def __init__(self, detail: str, fix: str, *, ok: bool | None = False) -> None:
        super().__init__(detail)
        self.fix, self.ok = fix, ok


def run_check(name: str, check: Callable[[], str], fix: str) -> CheckResult:
    """Runs one check and turns what it returns or raises into a result.

    Args:
        name: name of the check.
        check: returns what it found, or raises an error.
        fix: what the user can do, if the error names nothing better.
    """
    try:
        return CheckResult(name, True, check())
    except CheckFailedError as error:
        return CheckResult(name, error.ok, str(error), error.fix or fix)
    except ApiException as error:
        known = {403: "this user may not look", 404: "not there"}.get(error.status, f"{error.status} {error.reason}")
        return CheckResult(name, None if error.status == 403 else False, known, fix)
    except (KeyError, TypeError, json.JSONDecodeError):
        return CheckResult(name, False, "answers, but not as an API server does", fix)
    except (StepError, InputError, HTTPError) as error:
        return CheckResult(name, False, str(error).split("\n")[0][:200], fix)
