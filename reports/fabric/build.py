"""Puts the page about a fabric together."""

from functools import partial

from configuration.errors import ConfigurationError
from configuration.overrides import Overrides
from reports import provenance
from reports.drawing import picture, saved
from reports.fabric import exposed_share, step_time
from reports.fabric.tiers import largest_exchange, tiers
from reports.fabric.turning import Study, Turn, study
from reports.fabric.verdicts import change, together, verdict
from reports.page import Page, Picture, Section, Table
from simulator.units import show_bytes, show_seconds

LIMITS = (
    "Predictions, not measurements: kernel rates come from the device profile, link rates and latencies from the fabric's file.",
    "Network-bound means that exposed communication is the largest of four parts: network, host, memory traffic, arithmetic; not by how much.",
    "Every expert gets the same number of tokens. Uneven routing makes all-to-all and experts slower.",
    "Each parameter is turned alone, the others stay as they are; more spines at an unchanged link rate add capacity unless an oversubscription is set.",
)


def build(models: list[str], fabric: str, settings: Overrides) -> Page:
    """Predict every model over every parameter of the fabric and draw it. Raises ConfigurationError in one line."""
    names = [name.strip() for name in models if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError("--models: expected different models with commas between, for one tiny-moe,mixtral-8x7b")
    studies = [study(name, fabric, settings) for name in names]
    first = studies[0].question
    graph = first.network.fabric
    plans = [f"{each.model}: {_plan(each)}" for each in studies]
    defaults = [(f"Defaults of {each.model}", _defaults(each)) for each in studies]
    return Page(
        name="fabric",
        title="What the fabric does to training",
        subject=f"{graph.spec.name}: {graph.size} endpoints, device {first.device.name}. {'; '.join(plans)}",
        verdicts=(together(studies), *(verdict(each) for each in studies)),
        sections=(_now(studies), *_turned(studies)),
        provenance=(*provenance.of_page(()), ("Device", first.device.source), *_sources(first.network.fabric.spec.model_dump()), *defaults),
        limits=LIMITS,
    )


def _plan(each: Study) -> str:
    plan = each.question.plan
    return f"{plan.ranks} ranks, ep {plan.ep}, {plan.micro_batch} × {plan.sequence} tokens, {plan.precision}"


def _defaults(each: Study) -> str:
    return "; ".join(f"{used.field} = {used.value} ({used.reason})" for used in each.question.defaults)


def _sources(spec: dict[str, object]) -> tuple[tuple[str, str], ...]:
    sources = spec.get("sources")
    return tuple((f"Fabric, {field}", str(source)) for field, source in sources.items()) if isinstance(sources, dict) else ()


def _now(studies: list[Study]) -> Section:
    headers = ("model", "step", "device works", "host and gaps", "exposed", "held back by", "hottest link", "memory of a rank")
    rows = []
    for each in studies:
        time = each.report.time
        work = time.forward_s + time.backward_s + time.optimizer_s
        shares = [f"{part / time.step_s:.1%}" for part in (work, time.other_s, time.exposed_communication_s)]
        fits = {True: "", False: " (does not fit)", None: ""}[each.report.fits]
        memory = show_bytes(each.report.memory.peak_allocated_bytes) + fits
        rows.append((each.model, show_seconds(time.step_s), *shares, each.report.bottleneck, each.report.bottleneck_link or "", memory))
    heaviest = max(studies, key=lambda each: each.report.time.exposed_communication_s / each.report.time.step_s)
    exchange = largest_exchange(heaviest)
    pictures: tuple[Picture, ...] = ()
    if exchange is not None and exchange.ranks > 1:
        caption = (
            f"The fabric's tiers, links coloured by load in one all-to-all of {heaviest.model}: {exchange.ranks} ranks, "
            f"{show_bytes(exchange.bytes_per_call)} each ({exchange.component})."
        )
        pictures = (saved("tiers", caption, tiers(heaviest, exchange)),)
    return Section("As it is", (), (Table("One step on this fabric", headers, tuple(rows)), _what_if(studies), *pictures))


def _what_if(studies: list[Study]) -> Table:
    names = list(dict.fromkeys(name for each in studies for name in each.what_if))
    rows = tuple((name, *(change(each, name) for each in studies)) for name in names)
    return Table("Change of the step's time when the fabric changes", ("change", *(each.model for each in studies)), rows)


def _turned(studies: list[Study]) -> tuple[Section, ...]:
    turned = [turn.knob for turn in studies[0].turns]
    left_out = studies[0].left_out
    sections = []
    if turned:
        caption = "Share of the step that waits for the network, each parameter turned alone."
        height = 3.4 * -(-len(turned) // 2) + 0.4
        sections.append(Section("All models together", left_out, (picture("exposed_share", caption, partial(exposed_share.draw, studies=studies), height),)))
    for place, knob in enumerate(turned):
        turns = [(each.model, each.turns[place]) for each in studies]
        caption = f"Step time against {knob.label}; dotted: as it is; dashed: where the step becomes network-bound."
        figure = picture(f"step_time_{knob.field}", caption, partial(step_time.draw, turns=turns), 4.0)
        sections.append(Section(knob.label.capitalize(), (knob.meaning,), (figure, _table(turns))))
    return tuple(sections)


def _table(turns: list[tuple[str, Turn]]) -> Table:
    first = turns[0][1]
    headers = (first.knob.label, *(model for model, _ in turns))
    rows = []
    for place, value in enumerate(first.values):
        times = [turn.reports[place].time for _, turn in turns]
        rows.append((first.knob.show(value), *(f"{show_seconds(time.step_s)} ({time.exposed_communication_s / time.step_s:.1%})" for time in times)))
    return Table(f"Step time against {first.knob.label}; in brackets the exposed share", headers, tuple(rows))
