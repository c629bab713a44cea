"""A run of Weft as a model of MLflow, which reads this file: ``mlflow.pyfunc.load_model(FOLDER).predict(frame)``."""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

import weft


class WeftModel(PythonModel):
    """The run that lies in the artifacts; its answers stand in the rows' order."""

    def load_context(self, context: Any) -> None:
        self.run = weft.load(context.artifacts["run"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        return self.run.predict(model_input)


set_model(WeftModel())
