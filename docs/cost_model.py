"""What products and estimates cost for language models of GPT's shape: operations, memory, bytes moved, seconds.

Units are floating-point operations, bytes and seconds; weights and vectors are in single precision. The numbers that a
graph saves were counted; the constants of a machine are fitted to measured points (`docs/cost_page.py`).

Source:
    Operations of a gradient: Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1 and table 1.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass, replace

FLOAT, BFLOAT16 = 4, 2  # bytes of a number
# Numbers that a graph saves for a token: for each entry of a layer's width, for each head and token that it looks at,
# and for each entry of the embedding and of the logits. Attention is of the kind that can be differentiated twice.
OF_GRADIENT, OF_LOSS = (32, 3, 3), (16, 1, 1)
INTERMEDIATE = 0.6  # memory of a product's intermediate results, relative to that of its graph
VECTORS = 8  # of n numbers, at the peak of a product or a Lanczos step, beside the weights and the Lanczos vectors
PER_PROBE, PROBE_ENTRIES = 6, 2**24  # vectors of a probe and its steps; entries of the probes that run together
DEEP_SHARE = 0.75  # of the products are those of the deep run, whose vectors are kept
PROBES_SHARE = 1 / 6  # as many probes as this share of the products are made orthogonal to what is kept

GRADIENT, KEPT, REBUILT, AT_ONCE = "gradient", "graph kept", "graph built again", "several at once"


@dataclass(frozen=True)
class Work:
    """What a device has to do.

    Attributes:
        flops: Operations of matrix products.
        graph_bytes: Bytes of the graphs that are gone through.
        starts: Number of layers whose kernels the host starts, those of a gradient's layer together.
        weight_bytes: Bytes of weights and vectors that are read and written.
    """

    flops: float
    graph_bytes: float
    starts: int
    weight_bytes: float

    def __add__(self, other: Work) -> Work:
        """Both, one after the other."""
        return Work(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    @property
    def bytes_moved(self) -> float:
        """Bytes that are written and read at least: graphs and intermediate results once each, weights and vectors."""
        return (2 + 2 * INTERMEDIATE) * self.graph_bytes + self.weight_bytes


@dataclass(frozen=True)
class Network:
    """A language model of GPT's shape, its output layer tied to the embedding.

    Attributes:
        vocabulary: Number of words.
        width: Length of a word's vector.
        depth: Number of transformer layers.
        heads: Number of attention heads of a layer.
        length: Number of tokens in a sequence.
        context: Number of positions that have a parameter.
    """

    vocabulary: int
    width: int
    depth: int
    heads: int
    length: int
    context: int

    @property
    def parameters(self) -> int:
        """Number ``n`` of parameters."""
        layer = 12 * self.width**2 + 13 * self.width
        return (self.vocabulary + self.context + 2) * self.width + self.depth * layer

    @property
    def vector_bytes(self) -> int:
        """Memory of a vector of ``n`` numbers."""
        return FLOAT * self.parameters

    def gradient_flops(self, tokens: int) -> float:
        """Operations of a gradient: six for each weight of a matrix and token, and those of attention."""
        matrices = 12 * self.depth * self.width**2 + self.vocabulary * self.width
        return tokens * (6.0 * matrices + 12.0 * self.depth * self.width * self.length)

    def graph_bytes(self, tokens: int, numbers: tuple[int, int, int] = OF_GRADIENT) -> float:
        """Memory of the graph of a gradient, or of that of a loss."""
        layer, pair, word = numbers
        inside = layer * self.depth * self.width + pair * self.depth * self.heads * self.length
        return float(FLOAT * tokens * (inside + word * (self.width + self.vocabulary)))

    def work(self, method: str, tokens: int) -> Work:
        """What a gradient or a product asks of a device.

        Args:
            method: `GRADIENT`; `KEPT` or `REBUILT`, a product whose graphs are kept or built again; `AT_ONCE`, one of
                so many products at once that the device does not wait for the host.
            tokens: Number of tokens.
        """
        flops, weights = self.gradient_flops(tokens), 4.0 * self.vector_bytes  # read, with the vector and the result
        if method == GRADIENT:
            return Work(flops, self.graph_bytes(tokens, OF_LOSS), self.depth, weights)
        graph, starts = self.graph_bytes(tokens), 0 if method == AT_ONCE else 2 * self.depth
        product = Work(2 * flops, graph, starts, weights)
        return product + self.work(GRADIENT, tokens) if method == REBUILT else product

    def memory(self, method: str, tokens: int) -> float:
        """Bytes above model and data of a gradient, or of a product with so many tokens in the graphs in memory."""
        if method == GRADIENT:
            return self.graph_bytes(tokens, OF_LOSS) + self.vector_bytes
        return (1 + INTERMEDIATE) * self.graph_bytes(tokens) + VECTORS * self.vector_bytes


@dataclass(frozen=True)
class Machine:
    """A device. What the page says of each constant is whether it was measured.

    Attributes:
        name: Of the device.
        flops: Operations per second, in matrix products of the sizes of such networks.
        graph_rate: Bytes of a graph per second, of what is not a matrix product.
        layer_seconds: Time in which the host starts the kernels of a gradient, per layer.
        vector_rate: Bytes of Lanczos vectors that are read per second.
        host_rate: The same where they are in the host's memory.
        memory: Bytes.
        link_rates: Bytes per second between devices, by their number.
    """

    name: str
    flops: float
    graph_rate: float
    layer_seconds: float = 0.0
    vector_rate: float = 0.0
    host_rate: float = 0.0
    memory: float = 0.0
    link_rates: tuple[tuple[int, float], ...] = ()

    def seconds(self, work: Work) -> float:
        """Time of some work: matrix products and the rest one after the other, unless the device waits for the host."""
        return max(work.flops / self.flops + work.graph_bytes / self.graph_rate, work.starts * self.layer_seconds)

    def link_seconds(self, num_bytes: float, devices: int) -> float:
        """Time of adding, or of collecting the parts of, vectors of so many bytes over some devices, in a ring."""
        return 0.0 if devices == 1 else num_bytes * (devices - 1) / devices / dict(self.link_rates)[devices]


@dataclass(frozen=True)
class Storage:
    """How Lanczos vectors are kept.

    Attributes:
        place: ``"device"``, ``"sharded"``, ``"cpu"`` or ``"none"``.
        item: Bytes of a number.
    """

    place: str
    item: int = FLOAT

    def describe(self) -> str:
        """The arguments of `estimate_spectrum`."""
        if self.place == "none":
            return 'reorthogonalize="none"'
        return f'basis="{self.place}"' + (", bfloat16" if self.item == BFLOAT16 else "")

    def total_bytes(self, network: Network, products: int) -> float:
        """Memory of all Lanczos vectors, wherever it is."""
        return 0.0 if self.place == "none" else DEEP_SHARE * products * network.parameters * self.item

    def device_bytes(self, network: Network, products: int, devices: int) -> float:
        """Memory of Lanczos vectors on one device."""
        if self.place == "cpu":
            return 0.0
        return self.total_bytes(network, products) / (devices if self.place == "sharded" else 1)


def estimate_memory(network: Network, products: int, storage: Storage, tokens: int, devices: int = 1) -> float:
    """Bytes above model and data on one device.

    Args:
        network: The network.
        products: Their number.
        storage: How Lanczos vectors are kept.
        tokens: Number of tokens in the graphs in memory.
        devices: Number of devices.
    """
    probes = PER_PROBE * probes_together(network.parameters, products) * network.vector_bytes
    return storage.device_bytes(network, products, devices) + network.memory(KEPT, tokens) + probes


def probes_together(parameters: float, products: int) -> float:
    """How many probes an estimate runs at a time: one, unless vectors are short."""
    return min(PROBES_SHARE * products, max(1, PROBE_ENTRIES // parameters))


def vector_reads(products: int) -> float:
    """How often a vector of the basis is read in an estimate, all of them together.

    A projection reads the basis twice and is repeated once: for every step of the deep run, in which the basis grows,
    every probe and every product of a probe.
    """
    deep = DEEP_SHARE * products
    return 2 * deep**2 + 4 * deep * (products - deep + PROBES_SHARE * products)


def orthogonal_seconds(machine: Machine, network: Network, products: int, storage: Storage, devices: int = 1) -> float:
    """Time for keeping vectors orthogonal in an estimate of so many products."""
    if storage.place == "none":
        return 0.0
    item = (
        FLOAT if storage.item == FLOAT else 2 * FLOAT + storage.item
    )  # converted in parts, which are read and written
    moved = vector_reads(products) * network.parameters * item
    if storage.place != "sharded":
        return moved / (machine.host_rate if storage.place == "cpu" else machine.vector_rate)
    collected = 2 * (1 + PROBES_SHARE) * products * network.vector_bytes
    return moved / devices / machine.vector_rate + machine.link_seconds(collected, devices)


@dataclass(frozen=True)
class Plan:
    """An estimate on some devices, with the first choice of storage that fits.

    Attributes:
        storage: How Lanczos vectors are kept.
        kept: Whether all graphs are kept.
        tokens_at_once: Number of tokens of a micro batch on each device.
        memory: Bytes on each device, the model included.
        product_seconds: Of a product.
        seconds: Of the estimate.
    """

    storage: Storage
    kept: bool
    tokens_at_once: int
    memory: float
    product_seconds: float
    seconds: float


def storages(devices: int) -> tuple[Storage, ...]:
    """From the most exact and fastest to the last resort."""
    places = ("device",) if devices == 1 else ("device", "sharded")
    exact = [Storage(place) for place in places]
    return (*exact, *(Storage(place, BFLOAT16) for place in places), Storage("cpu"), Storage("none"))


def plan(machine: Machine, network: Network, tokens: int, products: int, devices: int) -> Plan | None:
    """How an estimate from so many tokens in all would be made; ``None``: not even without Lanczos vectors.

    The first storage that leaves room for the graph of one sequence is taken; graphs are kept if all of them fit too.
    """
    here = max(network.length, tokens // devices)
    for storage in storages(devices):
        fixed = network.vector_bytes + estimate_memory(network, products, storage, 0, devices)
        room = (machine.memory - fixed) / ((1 + INTERMEDIATE) * network.graph_bytes(1))
        if room < network.length:
            continue
        kept = here <= room
        part = here if kept else min(int(room), enough_tokens(machine, network)) // network.length * network.length
        count = -(-here // part)
        memory = fixed + (1 + INTERMEDIATE) * network.graph_bytes(part)
        one = count * machine.seconds(network.work(KEPT if kept else REBUILT, here // count))
        one += machine.link_seconds(2.0 * network.vector_bytes, devices)
        rest = orthogonal_seconds(machine, network, products, storage, devices)
        return Plan(storage, kept, part, memory, one, products * one + rest)
    return None


def enough_tokens(machine: Machine, network: Network) -> int:
    """The smallest micro batch of whole sequences with which a device does not wait for the host."""
    one = network.work(REBUILT, 1)
    device = machine.seconds(replace(one, starts=0))
    sequences = math.ceil(one.starts * machine.layer_seconds / device / network.length)
    return max(1, sequences) * network.length


def largest_network(machine: Machine, products: int, storage: Storage, devices: int, share: float = 0.9) -> float:
    """Number of parameters up to which Lanczos vectors fit, with a share of the memory for all but graphs."""
    vectors: float = FLOAT * (1 + VECTORS + PER_PROBE)
    if storage.place not in ("cpu", "none"):
        vectors += DEEP_SHARE * products * storage.item / (devices if storage.place == "sharded" else 1)
    return share * machine.memory / vectors


def tokens_for_host_basis(machine: Machine, products: int) -> float:
    """Tokens on a device up to which building graphs again costs less than moving the basis to the host's memory.

    Both make room on a device. The first costs a gradient for each product, the second the slower memory for every
    projection; the number of parameters cancels where matrix products take most of the time.
    """
    slower = vector_reads(products) * FLOAT * (1 / machine.host_rate - 1 / machine.vector_rate)
    return slower / products / (6 / machine.flops)
