"""The course: where its notebooks are, and the one network that all of them look at."""

from renyi_lab.course._files import course_directory
from renyi_lab.course._network import NETWORK_FILE, CourseNetwork, load_network, save_network, train_network

__all__ = ["NETWORK_FILE", "CourseNetwork", "course_directory", "load_network", "save_network", "train_network"]
