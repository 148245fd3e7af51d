"""A small pipeline with what KFP's graphs have: conditions, loops, a graph in a graph, an exit handler. KFP reads its annotations."""

# ruff: noqa: ANN201, ARG001, B006 - as users of KFP write it
from kfp import dsl


@dsl.component(base_image="python:3.11")
def colour(number: int) -> str:
    return "red" if number == 1 else "blue"


@dsl.component(base_image="python:3.11")
def paint(text: str, coats: float = 2.0) -> bool:
    return True


@dsl.component(base_image="python:3.11")
def count(item: str) -> int:
    return 1


@dsl.component(base_image="python:3.11")
def tidy(status: dsl.PipelineTaskFinalStatus):
    pass


@dsl.component(base_image="python:3.11")
def shade() -> str:
    return "blue"


@dsl.pipeline
def inner(name: str) -> str:
    return shade().output


@dsl.pipeline(name="sample")
def sample(
    number: int,
    names: list = ["u", "v"],
):
    with dsl.ExitHandler(tidy()):
        chosen = colour(number=number).set_retry(2)
        with dsl.If(chosen.output == "red"):
            paint(text=f"it is {chosen.output} now")
        with dsl.Elif(number > 3):
            paint(text="much")
        with dsl.Else():
            paint(text="little")
        with dsl.ParallelFor(names) as name:
            count(item=name)
        with dsl.ParallelFor([{"k": 7}, {"k": 8}]) as item:
            colour(number=item.k)
        nested = inner(name=chosen.output)
        paint(text=nested.output)
