"""How quick the ranking screen is with nine responses of 8,000 characters, measured in Chromium.

    python -m benchmarks.ranking_page [--out benchmarks/results/ranking_page.json]

Key press to paint by the browser's own Event Timing, in the plain and in the tiers-first way; what a press of `d` takes to mark
the words that differ; the first paint with the processor slowed four times; the bytes of all scripts of the page. JSON last.
"""

import argparse
import gzip
import json
import platform
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from studies.ranking_screens import LongTask, open_task, serve
from tests.browser.person import make_person
from tests.chromium import start_browser

OUTPUTS, CHARACTERS = 9, 8_000
KEYS = (*("j", "3", "k", "2", "j", "]", "[", "=", "0", "1", "u", "U", "Shift+4", "f", "q", "f"), *("j", "k") * 3)
OBSERVE = """
window.presses = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.name === "keydown") window.presses.push([entry.duration, entry.processingEnd - entry.processingStart]);
  }
}).observe({ type: "event", durationThreshold: 16, buffered: true });
"""
VOCABULARY = 2_000


def write_texts(seed: int) -> list[str]:
    """Nine Markdown texts of 8,000 characters with headings, lists and code."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("aeilnorstu", k=rng.randint(2, 9))) for _ in range(VOCABULARY)]
    texts = []
    for _ in range(OUTPUTS):
        parts: list[str] = []
        while sum(len(part) + 2 for part in parts) < CHARACTERS:
            sentence = " ".join(rng.choices(words, k=60)).capitalize() + "."
            parts.append(rng.choice([sentence, sentence, f"## {sentence[:40]}", f"- {sentence}", f"`{sentence[:30]}`"]))
        texts.append("\n\n".join(parts)[:CHARACTERS])
    return texts


def measure_keys(page: Page, rounds: int) -> dict[str, Any]:
    """Key press to paint in milliseconds. Event Timing rounds to 8 and reports none below 16, which count as 16."""
    page.evaluate(OBSERVE)
    count = 0
    for _ in range(rounds):
        for key in KEYS:
            page.keyboard.press(key)
            count += 1
            page.wait_for_timeout(60)
    page.wait_for_timeout(500)
    seen = page.evaluate("window.presses")
    times = sorted([duration for duration, _ in seen] + [16.0] * (count - len(seen)))
    return {
        "presses": count,
        "p50_ms": statistics.median(times),
        "p95_ms": times[int(0.95 * len(times))],
        "worst_ms": times[-1],
        "worst_script_ms": max((script for _, script in seen), default=0.0),
    }


def measure_difference(page: Page) -> dict[str, float]:
    """Marking the words that differ between two of the texts, to the paint, on the page as it is."""
    for key in ("o", "a", "c", "b"):
        page.keyboard.press(key)
    took = []
    for _ in range(10):
        took.append(
            page.evaluate(
                """async () => {
                  const button = document.querySelector("[data-compare-difference]");
                  const from = performance.now();
                  button.click();
                  const script = performance.now() - from;
                  await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
                  const all = performance.now() - from;
                  button.click();
                  return [script, all];
                }"""
            )
        )
    page.keyboard.press("Escape")
    return {"script_ms": max(script for script, _ in took), "painted_ms": max(all_ for _, all_ in took)}


def measure_first_paint(browser: Browser, cookies: list[Any], address: str) -> dict[str, float]:
    """First contentful paint in a fresh context, the processor slowed four times; the median of five."""
    paints, readies = [], []
    for _ in range(5):
        context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        context.add_cookies(cookies)
        page = context.new_page()
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": 4})
        page.goto(address)
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
        paints.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        readies.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
        context.close()
    return {"first_paint_ms": statistics.median(paints), "scripts_ran_ms": statistics.median(readies)}


def weigh_scripts(page: Page) -> int:
    """Bytes of every script of the page, gzipped one by one."""
    sources = page.evaluate("Promise.all([...document.scripts].map(async (one) => (await fetch(one.src)).text()))")
    return sum(len(gzip.compress(source.encode(), 9)) for source in sources)


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ranking_page.json"))
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as url, start_browser() as browser:
        open_task(LongTask("long", [{"role": "user", "content": "Tell of the ship. " * 50}], write_texts(0)), 100)
        context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
        page = context.new_page()
        make_person(url).sign_in(page)
        page.goto(f"{url}/p/starter/rank")
        page.get_by_role("button", name="Get a task").click()
        page.locator("[data-output]").first.wait_for()
        sorting = measure_keys(page, asked.rounds)
        page.keyboard.press("t")
        plain = measure_keys(page, asked.rounds)
        report = {
            "outputs": OUTPUTS,
            "characters": CHARACTERS,
            "browser": f"Chromium {browser.version}",
            "processor": platform.processor() or platform.machine(),
            "key_to_paint": plain,
            "key_to_paint_tiers_first": sorting,
            "difference": measure_difference(page),
            "slowed_four_times": measure_first_paint(browser, context.cookies(), page.url),
            "scripts_gzipped_bytes": weigh_scripts(page),
        }
    asked.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
