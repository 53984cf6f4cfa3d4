"""HTML pages of evaluations, and pictures logged during training."""

from eaglenet_mm.visualization.collecting import collect_results
from eaglenet_mm.visualization.compare_page import compare_page
from eaglenet_mm.visualization.results_data import RetrievalResults
from eaglenet_mm.visualization.results_file import read_results, write_results
from eaglenet_mm.visualization.results_page import results_page

__all__ = [
    'RetrievalResults',
    'collect_results',
    'compare_page',
    'read_results',
    'results_page',
    'write_results',
]
