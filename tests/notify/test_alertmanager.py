"""Notifications to the real Alertmanager."""

import time
import unittest

from support import Agent, Alertmanager, eventually, has_alertmanager, request

MISSING = not has_alertmanager()


@unittest.skipIf(MISSING, "no Alertmanager (Debian's package prometheus-alertmanager)")
class RealAlertmanager(unittest.TestCase):
    def setUp(self):
        self.alertmanager = Alertmanager()
        self.addCleanup(self.alertmanager.remove)
        self.alertmanager.start()
        self.agent = Agent([{
            "name": "am", "update_interval": "0s", "link": "https://tapio.example/stories/{id}",
            "alertmanager": {"url": self.alertmanager.url, "resend": "1s"},
        }], is_apart=True)
        self.addCleanup(self.agent.remove)
        self.agent.start()

    def alert(self, unit, **more):
        found = self.alertmanager.alerts(systemd_unit=unit, **more)
        return found[0] if found else None

    def test_alert_has_few_labels_is_listed_resent_updated_and_ends(self):
        self.agent.event("test.slow", "a.service", "slow disk")
        alert = eventually("the alert", lambda: self.alert("a.service"))
        self.assertEqual(alert["labels"], {
            "alertname": "test-long", "pattern": "test-long", "severity": "warning", "node": "n1",
            "cluster": "test", "systemd_unit": "a.service"})
        story = self.agent.stories("a.service")[0]
        self.assertEqual(alert["annotations"]["cause"], "slow disk")
        self.assertEqual(alert["annotations"]["story"], story["id"])
        self.assertEqual(alert["generatorURL"], f"https://tapio.example/stories/{story['id']}")
        self.assertIn("test-long", self.alertmanager.tool("alert", "query"))
        until = lambda: self.alert("a.service")["endsAt"]
        first = until()
        eventually("it is sent again", lambda: until() > first)
        time.sleep(6)
        self.assertEqual(self.alert("a.service")["status"]["state"], "active", "after all of its first endsAt")
        self.agent.event("test.slow", "a.service", "slower disk", severity="warn")
        self.agent.event("test.worse", "a.service", "the disk fails")
        worse = eventually("another severity is another alert", lambda: self.alert("a.service", severity="error"))
        self.assertEqual(worse["annotations"]["cause"], "the disk fails")
        eventually("the alert before ends", lambda: not self.alert("a.service", severity="warning"))

    def test_alert_ends_when_the_story_does(self):
        self.agent.event("test.fault", "b.service")
        eventually("it fires", lambda: "firing" in self.alertmanager.notified("b.service"))
        eventually("it is resolved", lambda: "resolved" in self.alertmanager.notified("b.service"))
        self.assertIsNone(self.alert("b.service"), "no open alert is left")
        self.assertEqual(self.agent.stories("b.service")[0]["state"], "closed")

    def test_alert_ends_when_the_story_is_retracted(self):
        self.agent.retracted_story("r.service")
        eventually("it fires", lambda: "firing" in self.alertmanager.notified("r.service"))
        eventually("it is resolved", lambda: "resolved" in self.alertmanager.notified("r.service"), 150)
        bodies = [a for body in self.alertmanager.sink.taken() for a in body["alerts"]]
        last = [a for a in bodies if a["labels"].get("systemd_unit") == "r.service"][-1]
        self.assertEqual(last["annotations"]["retracted"], "true")

    def test_silence_of_tapio_ends_the_alert_and_its_end_lets_it_fire_again(self):
        self.agent.event("test.slow", "c.service")
        eventually("it fires", lambda: self.alert("c.service"))
        api = f"http://127.0.0.1:{self.agent.http}/api/v1"
        silence = request("POST", f"{api}/silences",
                          {"rule": "test-long", "key": {"systemd.unit": "c.service"}, "for": "4s"})
        self.assertEqual(silence["rule"], "test-long")
        eventually("it ends", lambda: not self.alert("c.service"))
        eventually("it fires again", lambda: self.alert("c.service"))

    def test_alerts_come_back_after_restarts_of_both(self):
        self.agent.event("test.slow", "d.service")
        eventually("it fires", lambda: self.alert("d.service"))
        self.alertmanager.stop()
        self.agent.event("test.slow", "e.service")
        eventually("e is stored", lambda: self.agent.stories("e.service"))
        self.agent.stop_server()
        self.alertmanager.start()
        self.agent.start_server()
        for unit in ("d.service", "e.service"):
            eventually(unit, lambda: self.alert(unit))

    def test_a_flood_is_one_alert(self):
        for number in range(200):
            self.agent.event("test.slow", f"unit-{number}")
        alert = lambda: self.alertmanager.alerts(alertname="TapioStoryFlood")
        found = eventually("the alert of the flood", alert, 90)
        self.assertIn("× test-long", found[0]["annotations"]["description"])
        self.assertEqual(len(self.alertmanager.alerts(alertname="test-long")), 20)

    def test_acknowledgement_is_an_annotation(self):
        self.agent.event("test.slow", "f.service")
        eventually("it fires", lambda: self.alert("f.service"))
        id = self.agent.stories("f.service")[0]["id"]
        request("PUT", f"http://127.0.0.1:{self.agent.http}/api/v1/stories/{id}/acknowledgement", {"by": "ann"})
        eventually("who", lambda: self.alert("f.service")["annotations"].get("acknowledged") == "ann")


if __name__ == "__main__":
    unittest.main()
