"""The scoring against stories written by hand: python3 -m unittest discover -s tests/shop"""

import json
import tempfile
import time
import unittest
from pathlib import Path

import report
import score


def stamp(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def story(identifier, causes, first, name="a story", key=None):
    return {
        "id": identifier,
        "rule": "rule",
        "name": name,
        "key": key or {},
        "first": stamp(first),
        "last": stamp(first + 60),
        "members": [],
        "root_cause": [{"cause": cause} for cause in causes],
    }


class NamesTest(unittest.TestCase):
    names = score.Names(0, {"4711": "mail"}, {"loop4": "database"})

    def test_services_are_found_by_name_address_process_and_cgroup(self):
        for text, service in {
            "cart: GET /cart/{user} fails in 26 % of its runs": "cart",
            "nothing listens on 10.70.0.19:8080; shop0-shipping keeps retrying": "quote",
            "shop0-recommend (pid 1) was OOM-killed": "recommendation",
            "limit of /shop0/catalog was reached": "catalog",
            "GET http://payment.shop:8080/charge failed": "payment",
            "python3 (pid 4711) was killed by SIGSEGV": "mail",
            "10 requests to loop4 were slow; a write for cart took 253 ms": "database",
            "checkout: POST calls cart in 3 % of its runs": "checkout",
        }.items():
            self.assertEqual(self.names.first(text), service, text)

    def test_other_shops_and_other_words_are_no_services(self):
        others = ("shop1-cart fails", "/shop1/cart was full", "10.71.0.19:8080")
        for text in (*others, "10.70.0.191", "cartridge", "pid 47"):
            self.assertIsNone(self.names.first(text), text)


class ScoreTest(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.folder = Path(self.scratch.name)
        self.write("run.json", [{"instance": 0}])
        self.write("phases.jsonl", [{"phase": "quiet", "start": 0, "seconds": 1800}])

    def write(self, name, items):
        text = "".join(json.dumps(item) + "\n" for item in items)
        (self.folder / name).write_text(text)

    def score(self, stories, faults):
        self.write("stories.jsonl", [{"read": read, "story": item} for read, item in stories])
        lines = []
        for kind, service, start in faults:
            times = {"start": start, "end": start + 40, "until": start + 90}
            lines.append({"kind": kind, "service": service, **times})
        self.write("faults.jsonl", lines)
        return score.score(self.folder)

    def test_first_story_counts_with_its_last_ranking(self):
        result = self.score(
            [
                (2020, story("a", ["frontend: slow", "cart: fails"], 2005)),
                (2050, story("a", ["cart: fails", "frontend: slow"], 2005)),
                (2060, story("b", ["mail: fails"], 2050)),
            ],
            [("exception", "cart", 2000)],
        )
        self.assertEqual(result["total"]["ac1"], 1.0)
        self.assertEqual(result["total"]["median_s"], 20)
        self.assertEqual(result["total"]["stories"], 2.0)

    def test_wrong_candidate_lowers_the_rank(self):
        causes = ["frontend: slow", "the node: pressure", "cart: fails"]
        stories = [(2020, story("a", causes, 2005))]
        total = self.score(stories, [("delay", "cart", 2000)])["total"]
        self.assertEqual((total["ac1"], total["ac3"]), (0.0, 1.0))

    def test_story_that_explains_the_first_has_the_root_cause(self):
        effect = story("a", ["nothing listens on 10.70.0.13:8080"], 2005)
        cause = story("b", ["it was killed"], 2006)
        cause["incident"] = {"id": "a", "role": "cause", "because": "depends on it"}
        cause["root_causes"] = [{"cause": "it was killed", "entity": {"name": "shop0-mail"}}]
        total = self.score([(2010, effect), (2011, cause)], [("oom", "mail", 2000)])["total"]
        self.assertEqual((total["ac1"], total["stories"]), (1.0, 1.0))

    def test_replaced_story_is_none(self):
        first, second = story("a", ["cart: x"], 2005), story("b", ["cart: x"], 2005)
        second["provisional"] = "a"
        total = self.score([(2010, first), (2030, second)], [("delay", "cart", 2000)])["total"]
        self.assertEqual((total["stories"], total["median_s"]), (1.0, 10))

    def test_incident_without_a_story_counts_as_wrong(self):
        total = self.score([], [("delay", "cart", 2000)])["total"]
        self.assertEqual((total["ac1"], total["with_story"], total["median_s"]), (0, 0, None))

    def test_story_of_the_fault_before_is_none_of_this_one(self):
        before, after = story("a", ["cart: x"], 1985), story("a", ["cart: x"], 1985, "y")
        revisions = [(1990, before), (2020, after)]
        verdict = self.score(revisions, [("delay", "cart", 2000)])["incidents"][0]
        self.assertEqual((verdict["story_count"], len(verdict["updated"])), (0, 1))

    def test_quiet_stories_are_false_unless_they_are_about_others(self):
        stories = [(100, story("a", ["cart: slow"], 90)), (200, story("b", ["rustc: killed"], 190))]
        result = self.score(stories, [])
        self.assertEqual(result["quiet"]["quiet"]["per_hour"], 2.0)
        self.assertEqual(len(result["others"]), 1)
        self.assertEqual(len(report.failures(result)), 1)


if __name__ == "__main__":
    unittest.main()
