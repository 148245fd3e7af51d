"""The feature vector: fits the MLlib pipeline that computes it from the raw columns, and describes its elements.

A categorical column is one-hot encoded: one feature per value, except the most frequent one, which is the reference category, and one
feature for values that are missing or did not occur in the train rows. A missing number is replaced by the mean of the train rows, and an
indicator feature marks it. A number is a feature as it is or standardised, or its interval is one-hot encoded. `fit_encoding` fits on the
rows that it gets, so callers must pass the train rows only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.ml.base import Transformer
from pyspark.ml.feature import (
    Bucketizer,
    OneHotEncoder,
    SQLTransformer,
    StringIndexer,
    VectorAssembler,
    VectorSlicer,
)
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.cells import BLANKS, MAX_EXACT_INTEGER, MAX_NUMBER, NUMBER, full_match, typed_value_format
from spark_jobs.errors import InputError

FEATURES = "features"
KEPT_FEATURES = "kept_features"
"""Column of the shorter feature vector, without the columns known only afterwards."""
PREDICTED_LABEL = "predicted_label"
PREDICTIONS = ("rawPrediction", "probability", "prediction", PREDICTED_LABEL)
"""Columns that a saved model adds to a table; the first three have MLlib's default names."""


@dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """How a numeric column becomes features.

    Attributes:
        name: name of the raw column.
        mean: mean over the train rows, which replaces missing values.
        indicator: whether an indicator feature marks missing values; only if some train rows have none.
        center: the feature is the value less `center`, divided by `scale`.
        scale: standard deviation over the train rows if the column is standardised, else 1.
        splits: rising; if there are any, each interval between them is a feature instead. An interval includes its lower end. The first
            one, of the values below all splits, is the reference and has no feature.
    """

    name: str
    mean: float
    indicator: bool
    center: float = 0.0
    scale: float = 1.0
    splits: tuple[float, ...] = ()

    def features(self) -> list[Feature | None]:
        """Returns the features of the value, in order; None for the reference interval."""
        if not self.splits:
            standardised = self.center != 0.0 or self.scale != 1.0
            return [Feature(column=self.name, kind="standardised" if standardised else "numeric")]
        ends = [f"to below {split:g}" for split in self.splits[1:]]
        intervals = [f"from {split:g} {end}".strip() for split, end in zip(self.splits, [*ends, ""], strict=True)]
        return [None, *(Feature(column=self.name, kind="interval", category=text) for text in intervals)]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One element of the feature vector.

    Attributes:
        column: name of the raw column.
        kind: `numeric`; `standardised` (less the mean, in standard deviations); `interval` (1 if the number is in this interval);
            `missing` (1 if the number is missing); `category` (1 if the column has this value); or `other` (1 if the value is missing
            or did not occur in the train rows).
        category: for the kind `category`, the value; for the kind `interval`, the interval in words.
    """

    column: str
    kind: str
    category: str = ""

    @property
    def name(self) -> str:
        named = {
            "numeric": self.column,
            "standardised": f"{self.column}, standardised",
            "interval": f"{self.column} {self.category}",
            "missing": f"{self.column} is missing",
            "category": f"{self.column} = {self.category}",
        }
        return named.get(self.kind, f"{self.column} is missing or new")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The fitted encoding of raw columns as feature vectors.

    Attributes:
        model: the MLlib pipeline that adds the column of feature vectors to a table with the raw columns.
        numeric: the numeric columns.
        vocabularies: the values of each categorical column that are features, the most frequent in the train rows first; values of equal
            frequency are in alphabetical order.
        features: the elements of the feature vector, in order.
        rare: for each column with too many values, the number of rare values that share the feature `other`.
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
    """Fits the encoding on the train rows.

    Args:
        train: the train rows, with the raw columns.
        numeric: the numeric columns with their means.
        categorical: names of the categorical columns.
        max_categories: largest number of values of a categorical column that become features.
        prefix: prefix of the names of the added columns; no column of the table has it.
        rare_as_other: whether the rarest values of a column with more values share the feature `other`; else such a column is an error.

    Raises:
        InputError: a categorical column has too many values, and `rare_as_other` is False.
    """
    select = SQLTransformer(statement=select_statement(numeric, categorical, prefix))
    selected = select.transform(train)
    stages: list[Transformer] = [select]
    vocabularies: dict[str, tuple[str, ...]] = {}
    rare: dict[str, int] = {}
    if categorical:
        places = range(len(categorical))
        indexer = StringIndexer(
            inputCols=[f"{prefix}category_{i}" for i in places],
            outputCols=[f"{prefix}index_{i}" for i in places],
            handleInvalid="keep",  # missing and unknown values get the last index, which is the feature `other`
            stringOrderType="frequencyDesc",
        )
        indexed = indexer.fit(selected)
        every = {name: tuple(values) for name, values in zip(categorical, indexed.labelsArray, strict=True)}
        rare = {name: len(values) - max_categories for name, values in every.items() if len(values) > max_categories}
        if rare and not rare_as_other:
            raise too_many_categories(every, rare, max_categories)
        vocabularies = {name: values[:max_categories] for name, values in every.items()}
        if rare:
            indexed = indexer.fit(_without_rare(selected, indexer.getInputCols(), vocabularies.values()))
        written = {name: typed_value_format(values) for name, values in vocabularies.items()}
        stages = [SQLTransformer(statement=select_statement(numeric, categorical, prefix, written)), indexed]
    binned = [place for place, column in enumerate(numeric) if column.splits]
    if binned:
        stages.append(_bucketizer(numeric, binned, prefix))
    indices = [*(f"index_{place}" for place in range(len(categorical))), *(f"interval_{place}" for place in binned)]
    if indices:
        encoder = OneHotEncoder(
            inputCols=[prefix + name for name in indices],
            outputCols=[f"{prefix}{name}_onehot" for name in indices],
            dropLast=False,
        )
        # OneHotEncoder takes the number of categories from the metadata of the columns, so no row is needed to fit it.
        stages.append(encoder.fit(PipelineModel(stages=stages[1:]).transform(selected.limit(0))))
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
    """Returns the transformer that copies `features` to `kept_features` without the features of some columns.

    Args:
        features: the elements of the feature vector, as described in features.json.
        columns: names of the raw columns to leave out.

    Returns:
        None if there are no columns to leave out, or if no feature would be left.
    """
    kept = [place for place, feature in enumerate(features) if feature["column"] not in columns]
    return VectorSlicer(inputCol=FEATURES, outputCol=KEPT_FEATURES, indices=kept) if columns and kept else None


def model_columns(table: Iterable[str], prefix: str) -> dict[str, str]:
    """Returns the names of the feature and prediction columns of a model that is applied to a user's table.

    A prediction column has MLlib's name, unless the table has a column of that name (in upper or lower case); then it gets the prefix.

    Args:
        table: names of the table's columns.
        prefix: prefix of the names of columns that steps add; no column of the user has it.

    Returns:
        Actual name by usual name, for `features` and each of `PREDICTIONS`.
    """
    taken = {name.lower() for name in table}
    names = {name: prefix + name if name.lower() in taken else name for name in PREDICTIONS}
    return {FEATURES: prefix + FEATURES, **names}


def set_column_names(model: Any, names: Mapping[str, str]) -> Any:
    """Sets the names of the columns that a classifier reads and adds; a name that is missing in `names` becomes MLlib's default."""
    model = model.setFeaturesCol(names.get(FEATURES, FEATURES)).setPredictionCol(names.get("prediction", "prediction"))
    model = model.setProbabilityCol(names.get("probability", "probability"))
    return model.setRawPredictionCol(names.get("rawPrediction", "rawPrediction"))


def select_statement(
    numeric: Sequence[NumericColumn],
    categorical: Sequence[str],
    prefix: str,
    written: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """Returns the SQL statement that adds the input columns of the further stages to a table with the raw columns.

    The saved model is also applied to tables that load has not read. So the statement accepts raw columns of any type, and parses texts
    as load does.

    Args:
        numeric: the numeric columns; a cell that load would reject counts as missing.
        categorical: names of the categorical columns.
        prefix: prefix of the names of the added columns.
        written: by column, how numbers and booleans are formatted as categories (see `typed_value_format`); a column that is
            left out must hold text.
    """
    columns = ["*"]
    for place, column in enumerate(numeric):
        raw = _identifier(column.name)
        value = _number(raw)
        number = f"coalesce({value}, {_double(column.mean)})"
        if (column.center, column.scale) != (0.0, 1.0):
            number = f"({number} - {_double(column.center)}) / {_double(column.scale)}"
        columns.append(f"{number} AS {prefix}number_{place}")
        columns.append(f"CAST({value} IS NULL AS DOUBLE) AS {prefix}missing_{place}")
    for place, name in enumerate(categorical):
        columns.append(f"{_category(_identifier(name), (written or {}).get(name))} AS {prefix}category_{place}")
    return f"SELECT {', '.join(columns)} FROM __THIS__"


def _double(value: float) -> str:
    return f"CAST('{value!r}' AS DOUBLE)"


def _number(raw: str) -> str:
    """Returns SQL that converts a raw column to double: null where it is missing, no number, infinite or too large."""
    text = _trimmed(f"CAST({raw} AS STRING)")
    number = f"CASE WHEN {text} RLIKE '{full_match(NUMBER)}' THEN try_cast({text} AS DOUBLE) END"
    value = f"CASE WHEN typeof({raw}) = 'double' THEN try_cast({raw} AS DOUBLE) ELSE {number} END"  # Spark keeps the branch of the type
    return f"(CASE WHEN abs({value}) <= {_double(MAX_NUMBER)} THEN {value} END)"


def _category(raw: str, written: Mapping[str, Any] | None) -> str:
    """Returns SQL that converts a raw column to the text of its category: null where it is missing."""
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
        exact = f"{double} = rint({double}) AND abs({double}) <= {MAX_EXACT_INTEGER}"
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
    if "__THIS__" in name or "${" in name:  # SQLTransformer and Spark SQL would substitute these
        return f"IDENTIFIER(CAST(X'{quoted.encode().hex()}' AS STRING))"
    return quoted


def _bucketizer(numeric: Sequence[NumericColumn], binned: Sequence[int], prefix: str) -> Bucketizer:
    """Returns the transformer that adds the index of the interval for the numeric columns at these places."""
    return Bucketizer(
        inputCols=[f"{prefix}number_{place}" for place in binned],
        outputCols=[f"{prefix}interval_{place}" for place in binned],
        splitsArray=[[-inf, *numeric[place].splits, inf] for place in binned],
    )


def _without_rare(rows: DataFrame, names: Sequence[str], kept: Iterable[Sequence[str]]) -> DataFrame:
    """Replaces rare values by null, so that an indexer that is fitted on these rows does not know them."""
    # `StringIndexerModel.from_arrays_of_labels` would be simpler, but it pads shorter label arrays with nulls and then fails on these.
    return rows.withColumns(
        {name: F.when(F.col(name).isin(*values), F.col(name)) for name, values in zip(names, kept, strict=True)}
    )


def too_many_categories(every: Mapping[str, Sequence[str]], names: Iterable[str], most: int) -> InputError:
    """Returns the error that names the columns with too many values and says what to do with each kind of column."""
    counted = ", ".join(f"{name!r} ({len(every[name]):,})" for name in names)
    return InputError(
        f"categorical columns with more values in the train rows than --max-categories={most}: {counted}; in the specification list "
        "identifiers and free text under columns.dropped, numbers under columns.numeric, and for true categories set "
        "columns.rare_as_other = true, which counts the rarest as one, or raise --max-categories"
    )


def _layout(
    numeric: Sequence[NumericColumn], vocabularies: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[int], tuple[Feature, ...]]:
    """Returns the columns to assemble, the indices of the assembled vector to keep, and the feature at each kept index."""
    assembled: list[str] = []
    places: list[Feature | None] = []
    for index, column in enumerate(numeric):
        assembled.append(f"interval_{index}_onehot" if column.splits else f"number_{index}")
        places += column.features()
        if column.indicator:
            assembled.append(f"missing_{index}")
            places.append(Feature(column=column.name, kind="missing"))
    for index, (name, values) in enumerate(vocabularies.items()):
        assembled.append(f"index_{index}_onehot")
        # The most frequent value has no feature: it is the reference. Else the features of a column would always add up to 1,
        # and the coefficients would not be unique.
        places += [None, *(Feature(column=name, kind="category", category=value) for value in values[1:])]
        places.append(Feature(column=name, kind="other"))
    kept = [index for index, feature in enumerate(places) if feature is not None]
    return assembled, kept, tuple(feature for feature in places if feature is not None)
