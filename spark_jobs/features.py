"""From typed columns to one vector: what a feature is, and the model that computes it.

A categorical column becomes one feature for each of its values but the commonest, which is the reference, and one for values that are
missing or were never met. A number that is missing becomes the mean of the train rows, and a feature says that it was missing. Everything
is fitted on the rows that are passed in; pass the train rows. Knows nothing of files or of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.ml.base import Transformer
from pyspark.ml.feature import (
    OneHotEncoder,
    SQLTransformer,
    StringIndexer,
    VectorAssembler,
    VectorSlicer,
)
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.cells import BLANKS, EXACT, LARGEST, NUMBER, how_typed_values_are_written, whole
from spark_jobs.errors import InputError

FEATURES = "features"
KEPT = "kept_features"
PREDICTED_LABEL = "predicted_label"
PREDICTIONS = ("rawPrediction", "probability", "prediction", PREDICTED_LABEL)
"""Columns that a saved model adds; the first three have MLlib's names."""


@dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """A numeric column.

    Attributes:
        name: the raw column.
        mean: mean of the train rows, put in the place of a missing value.
        indicator: whether a feature says that the value was missing, because some train rows miss it.
    """

    name: str
    mean: float
    indicator: bool


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One place of the feature vector.

    Attributes:
        column: the raw column.
        kind: `numeric`, `missing` (1 if the number is missing), `category` (1 if the column has this value) or `other` (1 if the
            value is missing or was not met in the train rows).
        category: the value, for `category`.
    """

    column: str
    kind: str
    category: str = ""

    @property
    def name(self) -> str:
        named = {
            "numeric": self.column,
            "missing": f"{self.column} is missing",
            "category": f"{self.column} = {self.category}",
        }
        return named.get(self.kind, f"{self.column} is missing or new")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The fitted features: `model` takes raw columns to `features`, behind the table's prefix, whose places `features` describes.

    Attributes:
        numeric: the numeric columns.
        vocabularies: values of each categorical column, commonest in the train rows first, equals in the order of the alphabet.
        rare: how many values of a column count as one, because it has more than the limit.
    """

    model: PipelineModel
    numeric: tuple[NumericColumn, ...]
    vocabularies: Mapping[str, tuple[str, ...]]
    features: tuple[Feature, ...]
    rare: Mapping[str, int]


def fit_encoding(
    train: DataFrame,
    numeric: Sequence[NumericColumn],
    categorical: Sequence[str],
    max_categories: int,
    prefix: str,
    *,
    rare_as_other: bool = False,
) -> Encoding:
    """Fits the features.

    Args:
        train: one row for each train row, with the raw columns.
        numeric: the numeric columns with their means.
        categorical: the categorical columns.
        max_categories: most values of a categorical column.
        prefix: with it begin the names of the columns that are added; no column of the table begins with it.
        rare_as_other: whether the rarest values of a column that has more count as missing or never met.

    Raises:
        InputError: a categorical column has more values, and `rare_as_other` is not set.
    """
    select = SQLTransformer(statement=select_statement(numeric, categorical, prefix))
    stages: list[Transformer] = [select]
    vocabularies: dict[str, tuple[str, ...]] = {}
    rare: dict[str, int] = {}
    if categorical:
        places = range(len(categorical))
        indexer = StringIndexer(
            inputCols=[f"{prefix}category_{i}" for i in places],
            outputCols=[f"{prefix}index_{i}" for i in places],
            handleInvalid="keep",  # the last index: missing, or not met in the train rows
            stringOrderType="frequencyDesc",
        )
        encoder = OneHotEncoder(
            inputCols=indexer.getOutputCols(), outputCols=[f"{prefix}onehot_{i}" for i in places], dropLast=False
        )
        selected = select.transform(train)
        indexed = indexer.fit(selected)
        every = {name: tuple(values) for name, values in zip(categorical, indexed.labelsArray, strict=True)}
        rare = {name: len(values) - max_categories for name, values in every.items() if len(values) > max_categories}
        if rare and not rare_as_other:
            raise too_many(every, rare, max_categories)
        vocabularies = {name: values[:max_categories] for name, values in every.items()}
        if rare:
            indexed = indexer.fit(_without_rare(selected, indexer.getInputCols(), vocabularies.values()))
        written = {name: how_typed_values_are_written(values) for name, values in vocabularies.items()}
        stages[0] = SQLTransformer(statement=select_statement(numeric, categorical, prefix, written))
        stages += [indexed, encoder.fit(indexed.transform(selected.limit(0)))]
    assembled, kept, features = _layout(numeric, vocabularies)
    encoded = f"{prefix}encoded"
    stages.append(VectorAssembler(inputCols=[prefix + name for name in assembled], outputCol=encoded))
    stages.append(VectorSlicer(inputCol=encoded, outputCol=prefix + FEATURES, indices=kept))
    return Encoding(
        model=PipelineModel(stages=stages),
        numeric=tuple(numeric),
        vocabularies=vocabularies,
        features=features,
        rare=rare,
    )


def slicer_without(features: Sequence[Mapping[str, str]], columns: Sequence[str]) -> VectorSlicer | None:
    """From `features` to `kept_features`, which lacks the features of some columns; None if there are no such columns or nothing is left.

    Args:
        features: the places of `features`, as features.json tells them.
        columns: the raw columns to leave out.
    """
    kept = [place for place, feature in enumerate(features) if feature["column"] not in columns]
    return VectorSlicer(inputCol=FEATURES, outputCol=KEPT, indices=kept) if columns and kept else None


def model_columns(table: Iterable[str], prefix: str) -> dict[str, str]:
    """What the columns are called that a saved model reads and adds where a user's table has these columns.

    The predictions keep their names unless the table has a column of that name, in any case, as Spark compares names.
    """
    taken = {name.lower() for name in table}
    names = {name: prefix + name if name.lower() in taken else name for name in PREDICTIONS}
    return {FEATURES: prefix + FEATURES, **names}


def name_columns(model: Any, names: Mapping[str, str]) -> Any:
    """Lets a classifier read and add columns of these names; those that are not given have MLlib's own."""
    model = model.setFeaturesCol(names.get(FEATURES, FEATURES)).setPredictionCol(names.get("prediction", "prediction"))
    model = model.setProbabilityCol(names.get("probability", "probability"))
    return model.setRawPredictionCol(names.get("rawPrediction", "rawPrediction"))


def select_statement(
    numeric: Sequence[NumericColumn],
    categorical: Sequence[str],
    prefix: str,
    written: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """SQL that adds to raw columns, of any name and type, the columns that the further stages read.

    Args:
        numeric: the numeric columns; a cell that load would refuse counts as missing.
        categorical: the categorical columns.
        prefix: with it begin the names of the columns that are added.
        written: how typed values of a categorical column are written, as `how_typed_values_are_written` says; text needs none.
    """
    columns = ["*"]
    for place, column in enumerate(numeric):
        raw = _identifier(column.name)
        value = _number(raw)
        columns.append(f"coalesce({value}, CAST('{column.mean!r}' AS DOUBLE)) AS {prefix}number_{place}")
        columns.append(f"CAST({value} IS NULL AS DOUBLE) AS {prefix}missing_{place}")
    for place, name in enumerate(categorical):
        columns.append(f"{_category(_identifier(name), (written or {}).get(name))} AS {prefix}category_{place}")
    return f"SELECT {', '.join(columns)} FROM __THIS__"


def _number(raw: str) -> str:
    """SQL for a raw column as double: null where it is missing, no number, infinite or too large."""
    text = _trimmed(f"CAST({raw} AS STRING)")
    number = f"CASE WHEN {text} RLIKE '{whole(NUMBER)}' THEN try_cast({text} AS DOUBLE) END"
    value = f"CASE WHEN typeof({raw}) = 'double' THEN try_cast({raw} AS DOUBLE) ELSE {number} END"  # Spark keeps the branch of the type
    return f"(CASE WHEN abs({value}) <= CAST('{LARGEST!r}' AS DOUBLE) THEN {value} END)"


def _category(raw: str, written: Mapping[str, Any] | None) -> str:
    """SQL for a raw column as category."""
    text = f"CAST({raw} AS STRING)"
    category = f"nullif({_trimmed(text)}, '')"
    if written is None:
        return category
    false, true = (f"CAST(X'{word.encode().hex()}' AS STRING)" for word in written["booleans"])
    double = f"try_cast({text} AS DOUBLE)"
    is_whole = f"{text} RLIKE '^-?[0-9]+$'"
    integer = f"CAST({double} AS STRING)" if written["numbers"] == "fraction" else text
    fraction = f"CAST(nanvl({double}, NULL) AS STRING)"
    if written["numbers"] == "whole":
        exact = f"{double} = rint({double}) AND abs({double}) <= {EXACT}"
        fraction = f"CASE WHEN {exact} THEN CAST(try_cast({double} AS BIGINT) AS STRING) ELSE {fraction} END"
    number = f"CASE WHEN {is_whole} THEN {integer} ELSE {fraction} END"
    return (
        f"CASE WHEN typeof({raw}) = 'boolean' THEN CASE {text} WHEN 'true' THEN {true} WHEN 'false' THEN {false} END "
        f"WHEN typeof({raw}) RLIKE '^(tinyint|smallint|int|bigint|float|double|decimal.*)$' THEN {number} ELSE {category} END"
    )


def _trimmed(text: str) -> str:
    blanks = f"CAST(X'{BLANKS.encode().hex()}' AS STRING)"
    visible = f"ascii({text}) BETWEEN 33 AND 126 AND ascii(substring({text}, -1, 1)) BETWEEN 33 AND 126"
    return f"CASE WHEN {visible} THEN {text} ELSE trim(BOTH {blanks} FROM {text}) END"


def _identifier(name: str) -> str:
    quoted = "`" + name.replace("`", "``") + "`"
    if "__THIS__" in name or "${" in name:  # SQLTransformer and Spark SQL would put something else in their place
        return f"IDENTIFIER(CAST(X'{quoted.encode().hex()}' AS STRING))"
    return quoted


def _without_rare(rows: DataFrame, names: Sequence[str], kept: Iterable[Sequence[str]]) -> DataFrame:
    """The rows with null for each value that is not kept: an indexer that is fitted on them does not know it."""
    # Not `StringIndexerModel.from_arrays_of_labels`: it fills columns with fewer labels than others up with nulls, and fails on these.
    return rows.withColumns(
        {name: F.when(F.col(name).isin(*values), F.col(name)) for name, values in zip(names, kept, strict=True)}
    )


def too_many(every: Mapping[str, Sequence[str]], names: Iterable[str], most: int) -> InputError:
    """Why columns with too many values are refused, and what to do with each kind of them."""
    counted = ", ".join(f"{name!r} ({len(every[name]):,})" for name in names)
    return InputError(
        f"categorical columns with more values in the train rows than --max-categories={most}: {counted}; in the specification list "
        "identifiers and free text under columns.dropped, numbers under columns.numeric, and for true categories set "
        "columns.rare_as_other = true, which counts the rarest as one, or raise --max-categories"
    )


def _layout(
    numeric: Sequence[NumericColumn], vocabularies: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[int], tuple[Feature, ...]]:
    """Columns to assemble, places of the assembled vector to keep, and what each kept place is."""
    assembled: list[str] = []
    places: list[Feature | None] = []
    for index, column in enumerate(numeric):
        assembled.append(f"number_{index}")
        places.append(Feature(column=column.name, kind="numeric"))
        if column.indicator:
            assembled.append(f"missing_{index}")
            places.append(Feature(column=column.name, kind="missing"))
    for index, (name, values) in enumerate(vocabularies.items()):
        assembled.append(f"onehot_{index}")
        # Without a reference the features of a column add up to 1 and the coefficients would not be unique.
        places += [None, *(Feature(column=name, kind="category", category=value) for value in values[1:])]
        places.append(Feature(column=name, kind="other"))
    kept = [index for index, feature in enumerate(places) if feature is not None]
    return assembled, kept, tuple(feature for feature in places if feature is not None)
