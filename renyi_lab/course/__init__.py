"""The course: where its notebooks are, the one network that all of them look at, stored results of long experiments,
and the edition for students.
"""

from renyi_lab.course._files import course_directory
from renyi_lab.course._network import NETWORK_FILE, CourseNetwork, load_network, save_network, train_network
from renyi_lab.course._results import load_results
from renyi_lab.course._student import student_edition

__all__ = [
    "NETWORK_FILE",
    "CourseNetwork",
    "course_directory",
    "load_network",
    "load_results",
    "save_network",
    "student_edition",
    "train_network",
]
