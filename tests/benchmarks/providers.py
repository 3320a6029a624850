"""What a job costs with each provider, beside a loop that calls the vendor's own client and keeps nothing."""

from collections.abc import Callable, Iterator
from statistics import median

from tests.benchmarks.bare_sdks import SDKS
from tests.benchmarks.processing import LATENCY, Line, Run
from tests.benchmarks.stage import Stage
from tests.benchmarks.table import Row, at_most, number, ratios
from tests.support.backends import SQLITE
from tests.support.vendors import VENDORS, Vendor

IN_FLIGHT = 200


def providers(stage: Stage) -> Iterator[Row]:
    """CPU per job with each provider, 200 in flight at half a second, beside the vendor's bare client."""
    jobs, in_flight = stage.size(1000, 100), stage.size(IN_FLIGHT, 50)
    latency = LATENCY if not stage.quick else 0.05
    vendors = [vendor for vendor in VENDORS if vendor.sdk in SDKS]
    with stage.account(SQLITE) as account:
        for vendor in vendors:
            url = f"{stage.provider.url}{vendor.path}"
            account.add_model(name=vendor.sdk, sdk=vendor.sdk, endpoint=url, apiVersion=vendor.version)
        line = Line(account, stage.provider, in_flight)

        def ours(vendor: Vendor) -> Run:
            account.model = vendor.sdk
            return line.run(jobs, latency)

        def bare(vendor: Vendor, *, ours: bool) -> Run:
            stage.provider.reset(latency)
            return Run(**stage.provider.bare(vendor.sdk, jobs, in_flight, path=vendor.path, ours=ours))

        for vendor in vendors:  # what a first job loads
            ours(vendor)
        variants: dict[str, Callable[[], Run]] = {}
        for vendor in vendors:
            variants[vendor.sdk] = lambda vendor=vendor: ours(vendor)
            variants[f"call {vendor.sdk}"] = lambda vendor=vendor: bare(vendor, ours=True)
            variants[f"bare {vendor.sdk}"] = lambda vendor=vendor: bare(vendor, ours=False)
        runs = stage.rounds(variants)
    found = {name: [run.cpu_ms for run in measured] for name, measured in runs.items()}
    for vendor in vendors:
        yield row_of(vendor.sdk, *(found[f"{kind}{vendor.sdk}"] for kind in ("", "call ", "bare ")))


def row_of(sdk: str, ours: list[float], call: list[float], bare: list[float]) -> Row:
    """`call` is our provider alone, in a loop that keeps nothing either."""
    return Row(
        name=f"CPU per job over the vendor's bare client, {sdk}",
        measured=ratios(ours, bare),
        unit="times",
        goal=at_most(1 / 3),
        note=f"{number(median(ours))} ms a job, {number(median(bare))} ms a bare call ({SDKS[sdk].__name__}); "
        f"our call alone is {number(median(call))} ms, {number(ratios(call, bare))} times; SQLite",
    )
