"""The report is complete, self-contained and the same twice, for sweeps of every shape."""

import functools
import io
import re
import stat
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from orchestrator.config.backends import BACKENDS
from orchestrator.config.load import load_published
from orchestrator.core.errors import UserError
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Point
from orchestrator.report import figures, trajectories
from orchestrator.report.page import escape_markdown, write_report
from orchestrator.report.terminal import print_board, print_differences
from orchestrator.report.words import slerp_words, span
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout
from orchestrator.stats.differences import alone, differences
from tests.helpers.sweep_boards import BOARDS, MEDICAL, make_board

FAKE = BACKENDS["fake"].warning or ""
Reports = Callable[[str], Path]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """The folder of a board's report, which is written once; nobody may change its files."""

    @functools.cache
    def folder(shape: str) -> Path:
        return write_report(BOARDS[shape](), Layout(tmp_path_factory.mktemp("report"))).parent

    return folder


class Loads(HTMLParser):
    """What a browser would fetch or run, and every id."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "srcset", "data")]
        self.ids += [value or "" for key, value in attrs if key == "id"]


@pytest.mark.parametrize("shape", BOARDS)
def test_a_report_is_complete_and_self_contained(shape: str, reports: Reports) -> None:
    board, folder = BOARDS[shape](), reports(shape)
    html, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    loads = Loads()
    loads.feed(html)
    assert not {"script", "link", "iframe", "object"} & set(loads.tags)
    assert all(address.startswith(("data:image/svg+xml;base64,", "#")) for address in loads.addresses)
    assert {address[1:] for address in loads.addresses if address.startswith("#")} <= set(loads.ids)
    assert len(loads.ids) == len(set(loads.ids)) and "url(" not in html and "@import" not in html
    for row in board.rows:
        assert row.recipe.id in html and row.recipe.id in markdown
    for picture in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (folder / picture).stat().st_size > 5000
    for picture in (folder / "figures").glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "arXiv 2604.01538" in html and "arXiv 2604.01538" in markdown
    assert "/home/someone" not in html + markdown and "/srv/tok" not in html + markdown


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["broken", "three objectives"])  # every kind of figure and table is in one of them
def test_the_same_board_gives_the_same_bytes(shape: str, reports: Reports, tmp_path: Path) -> None:
    first = reports(shape)
    assert write_report(BOARDS[shape](), Layout(tmp_path)) == tmp_path / "report.html"
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) >= 4
    for file in files:
        assert (first / file).read_bytes() == (tmp_path / file).read_bytes(), file
        assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_the_paper_sweep_has_both_figures(reports: Reports) -> None:
    assert len(BOARDS["paper"]().rows) == 20
    folder = reports("paper")
    names = sorted(path.name for path in (folder / "figures").iterdir())
    assert names == ["front.png", "front.svg", "trajectories.png", "trajectories.svg"]
    markdown = (folder / "report.md").read_text()
    assert "20 recipes, 20 scored" in markdown and "SLERP is linear here" in markdown
    assert "The 22 merges and the 2 unmerged models are 20 recipes" in markdown
    assert "clinical (parent) = linear alpha=0.0 = slerp t=0.0" in markdown
    assert "unweighted mean over 3 tasks (average: tasks) of acc" in markdown
    assert "mean of its metrics" in markdown and FAKE not in markdown


@pytest.mark.slow
def test_a_picture_that_cannot_be_drawn_any_more_is_removed(tmp_path: Path) -> None:
    write_report(BOARDS["paper"](), Layout(tmp_path))
    write_report(BOARDS["no ratio"](), Layout(tmp_path))
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["front.png", "front.svg"]
    assert "no scored recipe lies between two parents" in (tmp_path / "report.md").read_text()


def test_a_ratio_that_is_not_one_number_is_on_no_line() -> None:
    lines = trajectories._lines(BOARDS["mergekit's forms"]())
    assert {line: [ratio for ratio, _ in found] for line, found in lines.items()} == {
        ("linear", "clinical", "instruct"): [0.5],
        ("slerp", "instruct", "clinical"): [0.3],
    }


def test_broken_recipes_are_told_and_not_scored(reports: Reports) -> None:
    html, markdown = ((reports("broken") / name).read_text() for name in ("report.html", "report.md"))
    for text in (html, markdown):
        assert "17 scored, 1 invalid, 1 failed and 1 pending" in text
        assert "The front may still change" in text
        assert "Traceback" not in text and "<script>" not in text and "<b>" not in text
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;" in html
    # Read back as Markdown, the message is one cell that shows exactly what was written.
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    assert (
        "<td>&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; | [b]bold[/b] `a` &lt;b&gt;&amp;amp; second" in rendered
    )


def test_nothing_scored_yet(tmp_path: Path) -> None:
    board = BOARDS["paper"]()
    rows = tuple(
        replace(row, status=RecipeStatus.PENDING, scores={}, costs={}, on_front=False, near_front=False)
        for row in board.rows
    )
    board = replace(board, rows=rows, slerp={}, notes=("block 7 is damaged",))
    text = write_report(board, Layout(tmp_path)).read_text()
    assert "Nothing is scored yet" in text and "block 7 is damaged" in text and "20 pending" in text
    assert not list((tmp_path / "figures").iterdir())


def test_a_rehearsal_says_so_everywhere(reports: Reports) -> None:
    board = BOARDS["rehearsal"]()
    html, markdown = ((reports("rehearsal") / name).read_text() for name in ("report.html", "report.md"))
    assert 'class="watermark"' in html
    assert FAKE in html and FAKE in markdown and FAKE in _printed(board)
    for figure in (figures.front(board), trajectories.trajectories(board)):
        assert figure is not None and "nothing was measured" in figure.get_suptitle()


def test_a_gradient_over_the_layers_is_no_place_along_the_ratio() -> None:
    board = BOARDS["paper"]()
    point = Point("slerp", (("t", "[0.2, 0.8]"),))
    rows = (*board.rows[:-1], replace(board.rows[-1], recipe=replace(board.rows[-1].recipe, points=(point,))))
    assert trajectories.trajectories(replace(board, rows=rows)) is not None


def test_less_is_better_is_up() -> None:
    figure = trajectories.trajectories(BOARDS["broken"]())
    assert figure is not None
    axes = {axes.get_ylabel().split()[0]: axes for axes in figure.axes}
    assert axes["perplexity"].yaxis_inverted() and not axes["medical"].yaxis_inverted()


def test_three_parents_have_a_line_a_pair() -> None:
    """The points of two grids are called the same; the models tell them apart."""
    parents = {name: {"model": name} for name in ("a", "b", "c")}
    grids = [{"method": "linear", "alpha": [0.0, 0.5, 1.0], "between": pair} for pair in (["a", "b"], ["b", "c"])]
    board = make_board({"medical": MEDICAL}, grids, parents=parents)
    lines = trajectories._lines(board)
    assert set(lines) == {("linear", "a", "b"), ("linear", "b", "c")}
    assert [[ratio for ratio, _ in line] for line in lines.values()] == [[0.0, 0.5, 1.0]] * 2
    assert trajectories.trajectories(board) is not None


def test_labels_of_a_front_are_legible() -> None:
    """No two labels overlap, and all are inside the axes, at the size of the paper's own sweep."""
    figure = figures.front(BOARDS["paper"]())
    assert figure is not None
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert {text.get_text() for text in axes.texts} >= {"clinical", "instruct"} and len(boxes) > 5
    for i, box in enumerate(boxes):
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


def _printed(board: Board) -> str:
    sink = io.StringIO()
    print_board(board, Console(file=sink, width=100))
    return sink.getvalue()


def test_the_board_in_a_terminal() -> None:
    board = BOARDS["broken"]()
    text = _printed(board)
    for row in board.rows:
        assert row.recipe.id[:8] in text
    assert text.count("●") == len(board.front) + 1 and "Traceback" not in text


def test_only_what_went_wrong_is_red() -> None:
    """A search's candidates that were stopped early or deferred are no failures."""
    board, sink = BOARDS["broken"](), io.StringIO()
    scored = [row for row in board.rows if row.status == "scored" and not row.on_front and row.method != "parent"]
    ended = {
        scored[0].recipe.id: RecipeStatus.STOPPED_EARLY,
        scored[1].recipe.id: RecipeStatus.DEFERRED,
    }
    rows = tuple(replace(row, status=ended.get(row.recipe.id, row.status)) for row in board.rows)
    console = Console(file=sink, width=200, force_terminal=True, color_system="standard")
    print_board(replace(board, rows=rows), console)
    lines = {row.recipe.id: line for row in rows for line in sink.getvalue().splitlines() if row.recipe.id[:8] in line}
    for style, statuses in (("31", {"invalid", "failed"}), ("2", {"pending", "stopped early", "deferred"})):
        assert {row.status for row in rows if lines[row.recipe.id].startswith(f"\x1b[{style}m")} == statuses


def test_a_difference_in_a_terminal() -> None:
    board = BOARDS["broken"]()
    a, b = board.find("linear alpha=0.2"), board.find("instruct")
    sink = io.StringIO()
    print_differences(board, a, [b], Console(file=sink, width=100))
    text = sink.getvalue()
    scores = [(a.scores[name], b.scores[name]) for name in a.scores]
    tasks = [tuple(map(alone, pair)) for pair in zip(scores[0][0].tasks, scores[0][1].tasks, strict=True)]
    assert len(tasks) > 1 and f"The {len(scores) + len(tasks)} intervals hold at once" in " ".join(text.split())
    found = differences([scores[0], *((x, y) for x, y in tasks), *scores[1:]])[1]
    assert a.recipe.id in text and "instruct (parent)" in text and "yes" in text
    assert span(found.low, found.high) in text and str(len(found.won) + len(found.lost)) in text
    assert re.search(
        r"medqa_4options: only a is right: \d+ \(documents (\d+, ){7}\d+ and \d+ more\)", " ".join(text.split())
    )


def test_a_recipe_without_scores_cannot_be_compared() -> None:
    board = BOARDS["broken"]()
    with pytest.raises(UserError, match="is pending and has no scores"):
        print_differences(board, board.find("slerp t=0.2"), [board.find("clinical")], Console(file=io.StringIO()))


def test_words() -> None:
    assert escape_markdown("a_b|c\n<d> & &lt; <= \\") == "a_b\\|c &lt;d> & &amp;lt; <= \\\\"
    share = {"tensors": 290.0, "curved": 0.25, "lowest_cosine": 0.9}
    assert "follows the arc in 25.0 % of the 290 tensors" in slerp_words("a/b", share)
    assert Point("linear", (("alpha", 0.4),)).label == "linear alpha=0.4"


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    """Also those of recipes that the run does not have; nothing is made up for them."""
    board = BOARDS["paper"]()
    (tmp_path / "figures.yaml").write_text(
        "source: A paper, table 2\n"
        "rows:\n  clinical: {medical: 0.5}\n  slerp t=0.4: {medical: 0.61, other: 0.2}\n  A model of theirs: {medical: 0.7}\n"
    )
    text = (
        write_report(board, Layout(tmp_path), load_published(tmp_path / "figures.yaml")).with_suffix(".md").read_text()
    )
    assert "A paper, table 2" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    value = board.find("slerp t=0.4").scores["medical"].value
    (ours,) = [row for row in rows if row[:5] == ["slerp t=0.4", "slerp t=0.4", "medical", "–", "0.61"]]
    assert ours[5].startswith(f"{value:.3f} ±")
    assert ours[6] == f"{value - 0.61:+.3f}"
    assert ["slerp t=0.4", "slerp t=0.4", "other", "–", "0.2", "–", "–", "–"] in rows
    assert ["A model of theirs", "–", "medical", "–", "0.7", "–", "–", "–"] in rows
    with pytest.raises(UserError, match=r"figures\.yaml: source: this key is missing"):
        (tmp_path / "figures.yaml").write_text("rows: {clinical: {medical: 0.5}}")
        load_published(tmp_path / "figures.yaml")
