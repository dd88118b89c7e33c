"""Puts the page about a fabric together."""

from functools import partial

from configuration.errors import ConfigurationError
from configuration.overrides import Overrides
from reports import provenance
from reports.drawing import picture, saved
from reports.fabric import exposed_share, regions, step_time, tornado
from reports.fabric.knobs import KNOBS
from reports.fabric.maps import RegionMap, maps
from reports.fabric.tiers import largest_exchange, tiers
from reports.fabric.turning import Study, Turn, study
from reports.fabric.verdicts import change, together, verdict
from reports.page import Page, Picture, Section, Table
from simulator.commands.network import group_cells
from simulator.units import show_bytes, show_seconds

LIMITS = (
    "Predictions, not measurements: kernel rates come from the device profile, link rates and latencies from the fabric's file.",
    "Network-bound means that exposed communication is the largest of four parts: network, host, memory traffic, arithmetic; not by how much.",
    "A map turns two parameters, every other figure one; more spines at an unchanged link rate add capacity unless an oversubscription is set.",
    "Points of a map are predictions, the borders between them lie half way; whether a point would fit in memory is not drawn.",
)


def build(models: list[str], fabric: str, settings: Overrides) -> Page:
    """Predict every model over every parameter of the fabric and draw it. Raises ConfigurationError in one line."""
    names = [name.strip() for name in models if name.strip()]
    if not names or len(set(names)) < len(names):
        raise ConfigurationError("--models: expected different models with commas between, for one tiny-moe,mixtral-8x7b")
    if len(names) > len(tornado.LOOKS):
        raise ConfigurationError(f"--models: {len(names)} models; a figure tells at most {len(tornado.LOOKS)} apart")
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
        sections=(_now(studies), _used(studies), *_mapped(studies), *_turned(studies)),
        provenance=(*provenance.of_page(()), ("Device", first.device.source), *_sources(first.network.fabric.spec.model_dump()), *defaults),
        limits=LIMITS,
    )


def _plan(each: Study) -> str:
    plan = each.question.plan
    load = each.question.network.load.text
    spread = f", expert load {load}" if each.question.model.expert_counts else ""
    return f"{plan.ranks} ranks, ep {plan.ep}, {plan.micro_batch} × {plan.sequence} tokens, {plan.precision}{spread}"


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
    return Section("As it is", (), (Table("One step on this fabric", headers, tuple(rows)), *pictures, *_what_if(studies)))


def _what_if(studies: list[Study]) -> tuple[Table | Picture, ...]:
    names = tornado.names(studies)
    if not names:
        return ()
    rows = tuple((name, *(change(each, name) for each in studies)) for name in names)
    table = Table("Change of the step's time when the fabric changes", ("change", *(each.model for each in studies)), rows)
    height = 0.28 * len(names) * len(studies) + 1.4
    return table, picture("what_if", "Change of the step's time when the fabric or the placement changes.", partial(tornado.draw, studies=studies), height)


def _used(studies: list[Study]) -> Section:
    """Which parallel group of each plan uses which tier, and what it exposes."""
    headers = ("model", "group", "ranks", "bytes a rank sends", "tiers (busiest link)", "exposed", "of the step")
    rows = []
    for each in studies:
        for use in each.groups:
            name, ranks, layout, _, size, tiers_used, _, _, exposed, share = group_cells(use)
            rows.append((each.model, name, f"{ranks}, {layout}", size, tiers_used, exposed, share))
    text = (
        "A group is as fast as the fullest link on its way. For each tier: what share of the transfer of the group's largest collective the busiest link up to "
        "that kind of switch is busy; 100% sets the pace. Exposed is what the step lasts longer than on a network that costs nothing."
    )
    return Section("Which parallel group uses which tier", (text,), (Table("Parallel groups of each plan", headers, tuple(rows)),))


def _mapped(studies: list[Study]) -> tuple[Section, ...]:
    """Maps of what holds the steps back."""
    sections = []
    for row in maps(studies):
        across, upwards = row[0].across, row[0].upwards
        title = f"What holds the step back: {across.label} and {upwards.label}"
        name = f"regions_{across.field}_{upwards.field}"
        figure = picture(name, f"{title}; every cell a prediction, the star is the fabric as it is.", partial(regions.draw, maps=row), 4.6)
        sections.append(Section(title, (), (figure, _crossings(row))))
    return tuple(sections)


def _crossings(row: list[RegionMap]) -> Table:
    across, upwards = row[0].across, row[0].upwards
    headers = (upwards.label, *(each.model for each in row))
    rows = tuple((upwards.show(value), *(each.told(place) for each in row)) for place, value in enumerate(row[0].y))
    return Table(f"Where the step turns network-bound along the {across.label}", headers, rows)


def _turned(studies: list[Study]) -> tuple[Section, ...]:
    turned = [knob for knob in KNOBS if any(each.turn(knob) for each in studies)]
    left_out = tuple(dict.fromkeys(text for each in studies for text in each.left_out))
    sections = []
    if turned:
        caption = "Share of the step that waits for the network, each parameter turned alone."
        height = 3.4 * -(-len(turned) // 2) + 0.4
        figure = picture("exposed_share", caption, partial(exposed_share.draw, studies=studies, knobs=turned), height)
        sections.append(Section("All models together", left_out, (figure,)))
    for knob in turned:
        turns = [(each.model, turn) for each in studies if (turn := each.turn(knob)) is not None]
        caption = f"Step time against {knob.label}; dotted: as it is; dashed: where the step becomes network-bound."
        figure = picture(f"step_time_{knob.field}", caption, partial(step_time.draw, turns=turns), 4.0)
        sections.append(Section(knob.label.capitalize(), (knob.meaning,), (figure, _table(turns))))
    return tuple(sections)


def _table(turns: list[tuple[str, Turn]]) -> Table:
    knob = turns[0][1].knob
    headers = (knob.label, *(model for model, _ in turns))
    rows = [(knob.show(value), *(_cell(turn, value) for _, turn in turns)) for value in sorted({value for _, turn in turns for value in turn.values})]
    return Table(f"Step time against {knob.label}; in brackets the exposed share", headers, tuple(rows))


def _cell(turn: Turn, value: float) -> str:
    if value not in turn.values:
        return "–"
    time = turn.reports[turn.values.index(value)].time
    return f"{show_seconds(time.step_s)} ({time.exposed_communication_s / time.step_s:.1%})"
