"""What a check of the cluster finds: well, missing, or not to be found out; with the fix."""

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
    """What one check found.

    Attributes:
        name: of what was checked.
        ok: True; False; None if it could not be found out, or is needed for some runs only.
        detail: what is there.
        fix: the next thing to do; empty if it is well.
    """

    name: str
    ok: bool | None
    detail: str
    fix: str = ""


class CheckFailedError(Exception):
    """A check found that something is missing."""

    def __init__(self, detail: str, fix: str, *, ok: bool | None = False) -> None:
        super().__init__(detail)
        self.fix, self.ok = fix, ok


def run_check(name: str, check: Callable[[], str], fix: str) -> CheckResult:
    """Runs a check, which returns what is there or raises, and says what it found.

    Args:
        name: of what is checked.
        check: the check.
        fix: the next thing to do, where the check knows no better.
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
