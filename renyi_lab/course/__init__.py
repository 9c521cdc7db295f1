"""The course: its notebooks, the networks that they look at, stored results of experiments, the student edition."""

from renyi_lab.course._certificate_networks import (
    CERTIFICATE_FILE,
    CertificateNetworks,
    load_certificate_networks,
    save_certificate_networks,
)
from renyi_lab.course._files import course_directory
from renyi_lab.course._network import NETWORK_FILE, CourseNetwork, load_network, save_network, train_network
from renyi_lab.course._results import load_results
from renyi_lab.course._student import student_edition

__all__ = [
    "CERTIFICATE_FILE",
    "NETWORK_FILE",
    "CertificateNetworks",
    "CourseNetwork",
    "course_directory",
    "load_certificate_networks",
    "load_network",
    "load_results",
    "save_certificate_networks",
    "save_network",
    "student_edition",
    "train_network",
]
