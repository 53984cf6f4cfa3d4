"""Pictures of results: pages of evaluations, side by side, and in training."""

from .collecting import collect_results
from .compare_page import compare_page
from .results_data import RetrievalResults
from .results_file import read_results, write_results
from .results_page import results_page

__all__ = [
    'RetrievalResults',
    'collect_results',
    'compare_page',
    'read_results',
    'results_page',
    'write_results',
]
