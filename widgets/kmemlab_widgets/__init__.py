"""The panels and cards of kmemlab's lessons."""

from kmemlab_widgets.cards import Exercise, Predict
from kmemlab_widgets.dmesg import Dmesg
from kmemlab_widgets.flagpicker import FlagPicker
from kmemlab_widgets.freelists import FreeLists
from kmemlab_widgets.lesson import Lesson
from kmemlab_widgets.mempoolgauge import MempoolGauge
from kmemlab_widgets.orderslider import OrderSlider
from kmemlab_widgets.requestpath import RequestPath
from kmemlab_widgets.sizeclasses import SizeClasses
from kmemlab_widgets.slabview import SlabView
from kmemlab_widgets.tasktimeline import TaskTimeline
from kmemlab_widgets.watermarks import Watermarks
from kmemlab_widgets.zonemap import ZoneMap

__all__ = [
    "Dmesg",
    "Exercise",
    "FlagPicker",
    "FreeLists",
    "Lesson",
    "MempoolGauge",
    "OrderSlider",
    "Predict",
    "RequestPath",
    "SizeClasses",
    "SlabView",
    "TaskTimeline",
    "Watermarks",
    "ZoneMap",
]
