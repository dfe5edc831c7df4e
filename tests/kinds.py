"""Models as others make them, of simulated kicks, and a cache of the hub that holds some."""

from __future__ import annotations

from functools import cache

import cloudpickle
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kickserve.features import FLAGS, NAMES
from kickserve.loading import load_source
from kickserve.plugins import discover
from kickserve.settings import Settings
from kickserve_data.simulate import simulate

REVISION = "0123456789abcdef0123456789abcdef01234567"
NUMBERS = [name for name in NAMES if name not in FLAGS]
KICKS = simulate(2_000, 1)
X, Y = KICKS.matrix, KICKS.success.astype(int)
FRESH = simulate(500, 2).matrix


def load(path, **environ):
    """Load the model of a file as the service does, with some variables set."""
    return load_source(str(path), discover(Settings(environ=environ)))


def frame(matrix, names=NAMES):
    """Kicks as a DataFrame with columns in some order."""
    return pd.DataFrame(matrix, columns=list(NAMES))[list(names)]


@cache
def linear():
    """A pipeline as the published one: a column transformer by position, fitted to arrays."""
    scaler = ColumnTransformer([("n", StandardScaler(), [0, 1, 2, 3, 4])], remainder="passthrough")
    return make_pipeline(scaler, LogisticRegression(class_weight="balanced")).fit(X, Y)


@cache
def onnx(*, named=True, zipmap=True):
    """The same as ONNX, in bytes."""
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType

    if named:
        inputs = [(name, FloatTensorType([None, 1])) for name in NAMES]
    else:
        inputs = [("kicks", FloatTensorType([None, len(NAMES)]))]
    made = skl2onnx.convert_sklearn(linear(), initial_types=inputs, options={"zipmap": zipmap})
    return made.SerializeToString()


def onnx_says(data, matrix):
    """What onnxruntime itself says of kicks, for a model of eleven inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feed = {name: matrix[:, [at]].astype(np.float32) for at, name in enumerate(NAMES)}
    return np.array([each[1] for each in session.run(["output_probability"], feed)[0]])


def onnx_of(inputs, nodes, outputs, constants=()):
    """An ONNX by hand, in bytes: inputs and outputs as (name, type, shape), constants as (name, value)."""
    from onnx import helper, numpy_helper

    made = helper.make_graph(
        nodes,
        "kicks",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    opset = helper.make_operatorsetid("", 17)
    return helper.make_model(made, opset_imports=[opset], ir_version=8).SerializeToString()


def hanging_onnx(near=90):
    """Time_norm as the probability; a kick from 90 to 99 m first takes 10¹² rounds of a loop."""
    from onnx import TensorProto, helper

    number, truth = TensorProto.FLOAT, TensorProto.BOOL
    node, value = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go_on"], ["going_on"]), node("Add", ["sum_in", "tiny"], ["sum_out"])],
        "body",
        [value("round", TensorProto.INT64, []), value("go_on", truth, []), value("sum_in", number, [])],
        [value("going_on", truth, []), value("sum_out", number, [])],
    )
    nodes = [
        node("Gather", ["kicks", "second"], ["distance"], axis=1),
        node("Greater", ["distance", "near"], ["beyond"]),
        node("Less", ["distance", "far"], ["within"]),
        node("And", ["beyond", "within"], ["hangs"]),
        node("Where", ["hangs", "many", "one"], ["rounds"]),
        node("ReduceMax", ["rounds"], ["most"], keepdims=0),
        node("Loop", ["most", "true", "zero"], ["sum"], body=body),
        node("Mul", ["sum", "zero"], ["nothing"]),
        node("Gather", ["kicks", "first"], ["time"], axis=1),
        node("Add", ["time", "nothing"], ["p"]),
    ]
    constants = {"first": np.array([0]), "second": np.array([1]), "true": np.ones((), bool)}
    constants |= {
        "near": np.float32(near),
        "far": np.float32(99),
        "zero": np.float32(0),
        "tiny": np.float32(1e-9),
    }
    constants |= {"many": np.int64(10**12), "one": np.int64(1)}
    return onnx_of([("kicks", number, ["n", 11])], nodes, [("p", number, ["n", 1])], constants.items())


def published():
    """The files of the published repository: an ONNX of eleven inputs, and a cloudpickle."""
    return {"model.onnx": onnx(), "model.pkl": cloudpickle.dumps(linear()), "README.md": b"# A model"}


def lay_out(home, repository, files, reference="main"):
    """Lay out the hub's cache by hand, as its library would after a download."""
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    for name, data in files.items():
        file = folder / "snapshots" / REVISION / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / reference).write_text(REVISION)
