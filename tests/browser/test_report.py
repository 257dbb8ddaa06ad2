"""The report in a real browser: Chromium opens the file, and draws."""

import importlib.util
import re
import shutil
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from stages.runtime import Runtime
from sweeps.compare import Compare

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SYNTHETIC = Path(__file__).parents[1] / "sweeps" / "synthetic.py"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"),
]


def load_synthetic() -> ModuleType:
    spec = importlib.util.spec_from_file_location("synthetic_study", SYNTHETIC)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIGURES = ("against-compute", "gold-by-proxy", "forest")


def figure_of(dom: str, name: str) -> str:
    """What plotly has drawn into one figure."""
    return dom.split(f'id="{name}"')[1].split("<figcaption>")[0]


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One headless visit with a fresh profile and no business on the network."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--user-data-dir={profile}",
        "--window-size=1280,4300", "--virtual-time-budget=5000", *options, page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose generations are hostile: they would write to the console and change the title."""
    synthetic, root = load_synthetic(), tmp_path_factory.mktemp("browser")
    hostile = "<script>console.error('injected'); document.title = 'injected'</script> & a quiet ending"
    points = synthetic.with_costs(synthetic.write_study(root / "scores", text=hostile), root / "decode")
    out, foresight = root / "out", synthetic.write_foresight(root / "foresight")
    out.mkdir()
    points = [entry | ({"foresight": foresight} if entry["method"] == "vas" else {}) for entry in points]
    Compare(points=points, runtime=Runtime(lineage=synthetic.lineage())).run(out)
    return out / "report.html"


def test_it_draws_its_plots_without_a_word_on_the_console(page: Path, tmp_path: Path) -> None:
    visit = browse(page, tmp_path, "--dump-dom")
    assert not re.findall(r"CONSOLE.*", visit.stderr)
    dom = visit.stdout
    assert dom.count('class="main-svg"') >= 2 * 5  # plotly draws at least two layers a figure
    for figure, markers in (("against-kl", 2 * 7), ("against-compute", 2 * 7), ("gold-by-proxy", 7), ("forest", 2 * 7)):
        drawn = figure_of(dom, figure)  # gold and proxy; each of the 7 points is a marker with its intervals
        assert drawn.count('class="point"') == markers, figure
        assert drawn.count('class="xerror"') == markers, figure
        assert figure == "forest" or drawn.count('class="yerror"') == markers, figure
    assert figure_of(dom, "foresight-0").count('class="point"') == 2 * 3  # value and prefix reward at three positions
    assert figure_of(dom, "foresight-0").count('class="yerror"') == 2 * 3
    for strength in ("β = 1", "β = 8", "n = 16"):
        assert len(re.findall(rf"<text[^>]*>{strength}</text>", figure_of(dom, "against-kl"))) == 2
    shades = [set(re.findall(r'class="point"[^>]*fill: (rgb\([^)]*\))', figure_of(dom, f))) for f in FIGURES]
    assert len(shades[0]) == 3  # one colour a method, the same in every figure
    assert shades[0] == shades[1] == shades[2]


def test_generated_markup_stays_text(page: Path, tmp_path: Path) -> None:
    visit = browse(page, tmp_path, "--dump-dom")
    assert "<title>Reward against KL: base, bon, vas</title>" in visit.stdout
    assert visit.stdout.count("&lt;script&gt;console.error('injected')") == 5 * 7


def test_it_can_be_seen_in_light_and_dark(page: Path, tmp_path: Path) -> None:
    pictures = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        options = (f"--screenshot={picture}", f"--blink-settings=preferredColorScheme={scheme}")
        browse(page, tmp_path / name, *options)
        data = picture.read_bytes()
        assert struct.unpack(">II", data[16:24]) == (1280, 4300)  # IHDR: width, height
        assert len(data) > 200_000  # an empty page compresses to far less
        pictures[name] = picture
    image = pytest.importorskip("PIL.Image", reason="Pillow, which measures the brightness, is not installed")
    light, dark = (image.open(pictures[name]).convert("L").resize((1, 1)).getpixel((0, 0)) for name in pictures)
    assert light > 200 > 100 > dark
