from .callback import PredictionTable as PredictionTable
from .table import Predictions as Predictions
from .table import read_predictions as read_predictions
from .table import write_predictions as write_predictions
