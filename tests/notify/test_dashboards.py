"""Every query of the dashboards and of the alerts runs in a real Prometheus that scrapes a real agent
and its server: each finds data, or is listed as one that finds none on a healthy node."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.parse
from pathlib import Path

import yaml_lite
from support import ROOT, Agent, Sink, eventually, free_port, get, program

PROMETHEUS = program("prometheus", "prometheus")
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"

# Metrics without a sample in this test, and why.
ABSENT = {
    "tapio_events_dropped_total": "nothing is dropped",
    "tapio_kmsg_records_lost_total": "the collector kmsg doesn't run",
    "tapio_journal_entries_gone_total": "the collector journal doesn't run",
    "tapio_ebpf_control_records_lost_total": "the collector ebpf doesn't run",
    "tapio_ebpf_program_runs_missed_total": "the collector ebpf doesn't run",
}


def queries(dashboard):
    """Panel and query of each target."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def names(expression):
    """The metrics that an expression names."""
    return set(re.findall(r"\b(?:tapio|process)_[a-z0-9_]+\b", expression))


def documented():
    text = (ROOT / "docs/metrics.md").read_text()
    found = set(re.findall(r"^\| `([a-z0-9_]+)` \|", text, re.M))
    return found | {f"{name}_bucket" for name in found if name.endswith("_seconds")}


@unittest.skipIf(not PROMETHEUS, "no Prometheus (Debian's package prometheus)")
class Dashboards(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.sink = Sink()
        cls.agent = Agent([{"name": "hook", "webhook": {"url": cls.sink.url}}], collectors="jsonl, node")
        cls.agent.extra = "export: { otlp: [{ name: away, endpoint: 'http://127.0.0.1:9' }] }\nmemory_limit: 1GiB\n"
        cls.agent.start()
        cls.dir = Path(tempfile.mkdtemp(prefix="tapio-prometheus-"))
        cls.port = free_port()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [{"job_name": "tapio", "static_configs": [{"targets": [
                f"127.0.0.1:{cls.agent.admin}", f"127.0.0.1:{cls.agent.http}"]}]}],
        }
        (cls.dir / "prometheus.yaml").write_text(json.dumps(config))
        cls.log = open(cls.dir / "log", "ab")
        cls.prometheus = subprocess.Popen(
            [PROMETHEUS, f"--config.file={cls.dir}/prometheus.yaml", f"--storage.tsdb.path={cls.dir}/data",
             f"--web.listen-address=127.0.0.1:{cls.port}"], stdout=cls.log, stderr=cls.log)
        eventually("Prometheus is ready", lambda: get(f"http://127.0.0.1:{cls.port}/-/ready"))
        cls.agent.event("test.fault", "a.service")
        cls.agent.event("test.slow", "a.service")
        eventually("notifications are counted", lambda: cls.query("sum(tapio_notify_sent_total) > 1"))
        # Two scrapes with values make a rate.
        eventually("rates", lambda: cls.query("count_over_time(tapio_notify_sent_total[1m]) > 5"))

    @classmethod
    def tearDownClass(cls):
        cls.prometheus.terminate()
        cls.prometheus.wait(30)
        cls.log.close()
        cls.agent.remove()
        cls.sink.close()
        shutil.rmtree(cls.dir, ignore_errors=True)

    @classmethod
    def query(cls, expression):
        query = urllib.parse.urlencode({"query": expression})
        answer = json.loads(get(f"http://127.0.0.1:{cls.port}/api/v1/query?{query}"))
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def test_every_query_of_every_dashboard_finds_data(self):
        self.assertEqual(len(DASHBOARDS), 3)
        run = 0
        for file in DASHBOARDS:
            for panel, written in queries(json.loads(file.read_text())):
                expression = written.replace("$__rate_interval", "30s").replace("$instance", ".*")
                with self.subTest(dashboard=file.stem, panel=panel, query=written):
                    self.assertNotIn("$", expression)
                    self.assertLessEqual(names(expression), documented())
                    found = self.query(expression)
                    run += 1
                    if not found:
                        self.assertTrue(names(expression) & set(ABSENT), "it finds nothing")
        self.assertGreater(run, 80)

    def test_metrics_listed_as_absent_are(self):
        for name, reason in ABSENT.items():
            with self.subTest(name=name, reason=reason):
                self.assertEqual(self.query(name), [])

    def test_metrics_of_alerts_exist(self):
        for alert, expression in yaml_lite.alerts(ALERTS.read_text()):
            with self.subTest(alert=alert):
                self.assertTrue(names(expression), expression)
                self.assertLessEqual(names(expression), documented())
                self.query(expression)
                for name in names(expression) - set(ABSENT):
                    self.assertTrue(self.query(name), name)

    def test_dashboards_are_loaded_by_their_ids(self):
        boards = [json.loads(file.read_text()) for file in DASHBOARDS]
        self.assertEqual(len({board["uid"] for board in boards}), len(boards))
        for board in boards:
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)), board["title"])
            for panel in board["panels"]:
                place = panel["gridPos"]
                self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
                self.assertTrue(panel["type"] == "row" or panel["targets"], panel["title"])
            variables = {one["name"] for one in board["templating"]["list"]}
            self.assertEqual(variables, {"datasource", "instance"})


if __name__ == "__main__":
    unittest.main()
