from .callback import Report as Report
from .card import DataCard as DataCard
from .render import render_report as render_report
