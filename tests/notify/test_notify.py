"""Notifications of a real agent and server to receivers of the test's own. `make test-notify` runs
it with what it needs."""

import json
import shutil
import signal
import subprocess
import threading
import time
import unittest

from support import TAPIO, Agent, Sink, eventually, get, is_signed, request

FAST = {"update_interval": "0s", "retry_for": "1h"}


def webhook(name, sink, **more):
    return {"name": name, "webhook": {"url": sink.url + "/hook?token=topsecret-in-url"}, **FAST, **more}


class Case(unittest.TestCase):
    def agent(self, *receivers, **more):
        agent = Agent(list(receivers), **more)
        self.addCleanup(agent.remove)
        return agent

    def sink(self, answer=None):
        sink = Sink(answer)
        self.addCleanup(sink.close)
        return sink


class Webhook(Case):
    def test_a_story_is_opened_updated_and_closed_once_each_and_signed(self):
        sink = self.sink()
        receiver = webhook("hook", sink)
        agent = self.agent(receiver)
        receiver["webhook"]["secret_file"] = str(agent.dir / "secret")
        agent.start()
        agent.event("test.slow", "a.service", "slow disk")
        eventually("it is opened", lambda: sink.events("a.service"))
        agent.event("test.slow", "a.service", "slow disk")
        agent.event("test.worse", "a.service", "the disk fails")
        eventually("it is updated", lambda: "updated" in sink.events("a.service"))
        agent.event("test.fault", "b.service")
        eventually("b is closed", lambda: "closed" in sink.events("b.service"))
        self.assertEqual(sink.events("b.service"), ["opened", "closed"])
        opened, updated = [n for n in sink.taken() if n["story"]["rule"] == "test-long"][:2]
        self.assertEqual((opened["event"], updated["event"]), ("opened", "updated"))
        self.assertEqual(opened["key"], updated["key"])
        self.assertEqual(opened["story"]["root_causes"][0]["cause"], "slow disk")
        self.assertEqual(updated["story"]["root_causes"][0]["cause"], "the disk fails")
        self.assertEqual((opened["node"], opened["cluster"]), ("n1", "test"))
        for _, headers, body, _ in sink.requests:
            self.assertTrue(is_signed(headers, body), headers)
            self.assertFalse(is_signed(headers, body + b" "))
            self.assertEqual(headers["webhook-id"], json.loads(body)["id"])
        ids = [n["id"] for n in sink.taken()]
        self.assertEqual(len(ids), len(set(ids)))
        self.assertEqual(agent.metric("tapio_notify_sent_total", "hook"), len(ids))
        self.assertEqual(agent.metric("tapio_notify_queue", "hook"), 0)

    def test_a_story_that_event_time_does_not_confirm_is_retracted(self):
        sink = self.sink()
        agent = self.agent(webhook("hook", sink)).start()
        agent.retracted_story("a")
        eventually("it is retracted", lambda: sink.events("a") == ["opened", "retracted"], 150)

    def test_a_receiver_that_fails_gets_everything_once_and_in_order_and_holds_up_nobody(self):
        answers = [(500, {}, b"broken"), None, 3, (429, {"Retry-After": "2"}, b"slow down")]
        times = []

        def answer(path, headers, body):
            times.append((time.monotonic(), headers["webhook-id"]))
            return answers.pop(0) if answers else (200, {}, b"")

        bad, good = self.sink(answer), self.sink()
        failing = webhook("bad", bad)
        failing["webhook"]["timeout"] = "1s"
        agent = self.agent(failing, webhook("good", good)).start()
        for unit in ("a", "b", "c"):
            agent.event("test.slow", unit)
            eventually(f"{unit} at the good one", lambda: good.events(unit))
        eventually("all at the bad one", lambda: len(bad.taken()) >= 3)
        self.assertEqual([unit for _, unit in bad.events()], ["a", "b", "c"])
        self.assertEqual(len(bad.taken()), 3)
        first = [of for _, of in times][:5]
        self.assertEqual(len(set(first)), 1, "each attempt has the same id")
        self.assertGreaterEqual(times[4][0] - times[3][0], 2, "Retry-After")
        self.assertEqual(agent.metric("tapio_notify_failed_total", "bad"), 4)
        self.assertEqual(agent.metric("tapio_notify_failed_total", "good"), 0)

    def test_what_happens_while_the_server_is_away_is_notified_about_once(self):
        sink = self.sink()
        agent = self.agent(webhook("hook", sink), is_apart=True).start()
        agent.event("test.slow", "a")
        eventually("a is opened", lambda: sink.events("a"))
        agent.stop_server()
        agent.event("test.slow", "b")
        agent.start_server()
        eventually("b is opened", lambda: sink.events("b"))
        agent.stop_server(signal.SIGKILL)
        agent.event("test.slow", "c")
        agent.start_server()
        eventually("c is opened", lambda: sink.events("c"))
        time.sleep(2)
        opened = [(n["story"]["key"]["systemd.unit"], n["id"]) for n in sink.taken()]
        # After a kill the same notification may come again, under the same id.
        self.assertEqual([unit for unit, _ in dict.fromkeys(opened)], ["a", "b", "c"], sink.events())
        self.assertEqual({event for event, _ in sink.events()}, {"opened"})

    def test_what_a_receiver_missed_comes_after_a_restart_of_the_server(self):
        is_up = threading.Event()
        sink = self.sink(lambda *_: (200, {}, b"") if is_up.is_set() else (503, {}, b""))
        agent = self.agent(webhook("hook", sink), is_apart=True).start()
        for unit in ("a", "b"):
            agent.event("test.slow", unit)
            eventually(f"{unit} is stored", lambda: agent.stories(unit))
        eventually("it is tried", lambda: sink.requests)
        agent.stop_server()
        is_up.set()
        agent.start_server()
        eventually("both are opened", lambda: len(sink.taken()) >= 2)
        time.sleep(1)
        self.assertEqual([(e, u) for e, u in sink.events() if e == "opened"],
                         [("opened", "a"), ("opened", "b")])

    def test_refused_and_outdated_notifications_are_dead_letters(self):
        refusing = self.sink(lambda *_: (422, {}, b"no: /hook?token=topsecret-in-url"))
        absent = self.sink(lambda *_: (503, {}, b""))
        moved = self.sink(lambda *_: (302, {"Location": refusing.url + "/other"}, b""))
        agent = self.agent(webhook("refusing", refusing), webhook("moved", moved),
                           webhook("absent", absent, retry_for="1s")).start()
        agent.event("test.slow", "a")
        for name in ("refusing", "moved", "absent"):
            eventually(name, lambda: agent.metric("tapio_notify_dead_letters_total", name) == 1)
        self.assertEqual({path for path, *_ in refusing.requests}, {"/hook?token=topsecret-in-url"},
                         "a redirect isn't followed")
        printed = subprocess.run([TAPIO, "notify", "dead-letters", "--config", str(agent.config)],
                                 capture_output=True, text=True, check=True).stdout
        letters = [json.loads(line) for line in printed.splitlines()]
        self.assertEqual({of["receiver"] for of in letters}, {"refusing", "moved", "absent"})
        self.assertTrue(all(of["notification"]["story"]["key"]["systemd.unit"] == "a" for of in letters))
        stats = {of["name"]: of for of in agent.api("/api/v1/stats")["notify"]}
        self.assertIn("HTTP 422", stats["refusing"]["last_error"])
        pages = [agent.text(), printed, json.dumps(stats), get(f"http://127.0.0.1:{agent.http}/metrics"),
                 get(f"http://127.0.0.1:{agent.admin}/status")]
        pages += [file.read_text() for file in (agent.dir / "state/store/notify").iterdir()]
        for page in pages:
            self.assertNotIn("topsecret", page)

    def test_a_flood_becomes_a_digest(self):
        sink = self.sink()
        digest = {"stories": 10, "within": "5s"}
        agent = self.agent(webhook("hook", sink, digest=digest, rate_limit={"requests": 1000, "per": "1s"}))
        agent.start()
        for number in range(1000):
            agent.event("test.slow", f"unit-{number}")
        found = lambda: sum(n["digest"]["stories"] for n in sink.taken() if n["event"] == "digest")
        eventually("the digests", lambda: found() >= 990)
        events = [event for event, _ in sink.events()]
        self.assertEqual((events.count("opened"), found()), (10, 990))
        self.assertLess(events.count("digest"), 10)
        digest = next(n["digest"] for n in sink.taken() if n["event"] == "digest")
        self.assertEqual(digest["rules"][0]["rule"], "test-long")
        self.assertEqual(agent.metric("tapio_notify_digested_stories_total", "hook"), 990)

    def test_conditions_silences_and_acknowledgements(self):
        sink, errors = self.sink(), self.sink()
        agent = self.agent(webhook("all", sink),
                           webhook("errors", errors, when={"severity": {"gte": "error"}, "rule": {"suffix": "fault"}, "systemd.unit": {"glob": "a*"}}))
        agent.start()
        api = f"http://127.0.0.1:{agent.http}/api/v1"
        silence = {"rule": "test-long", "key": {"systemd.unit": "quiet"}, "for": "3s"}
        request("POST", f"{api}/silences", silence)
        agent.event("test.slow", "quiet")
        agent.event("test.slow", "a")
        eventually("a is opened", lambda: sink.events("a"))
        id = agent.stories("a")[0]["id"]
        request("PUT", f"{api}/stories/{id}/acknowledgement", {"by": "ann"})
        agent.event("test.worse", "a")
        agent.event("test.fault", "a")
        eventually("test-fault", lambda: errors.events("a"))
        self.assertEqual(sink.events("quiet"), [])
        eventually("the silence is over", lambda: sink.events("quiet") == ["opened"])
        long = [n["event"] for n in sink.taken() if n["story"]["rule"] == "test-long"
                and n["story"]["key"]["systemd.unit"] == "a"]
        self.assertEqual(long, ["opened"], "somebody works on it: there are no updates")
        self.assertEqual({n["story"]["rule"] for n in errors.taken()}, {"test-fault"})

    def test_a_reload_changes_receivers(self):
        first, second = self.sink(), self.sink()
        agent = self.agent(webhook("first", first)).start()
        agent.event("test.slow", "a")
        eventually("a", lambda: first.events("a"))
        agent.notify = [webhook("second", second)]
        agent.config
        agent.process.send_signal(signal.SIGHUP)
        eventually("the reload", lambda: "server.notify[0].name: first → second" in agent.text())
        agent.event("test.slow", "b")
        eventually("b", lambda: second.events("b"))
        self.assertEqual((first.events("b"), second.events("a")), ([], []))


class Slack(Case):
    def test_web_api_edits_one_message_and_replies_in_its_thread(self):
        posted = []

        def answer(path, headers, body):
            message = json.loads(body)
            posted.append((path, headers, message))
            if len(posted) == 1:
                return 200, {}, b'{"ok": false, "error": "ratelimited"}'
            return 200, {}, json.dumps({"ok": True, "ts": "1700000000.000100"}).encode()

        slack = self.sink(answer)
        agent = Agent([])
        self.addCleanup(agent.remove)
        agent.notify = [{"name": "slack", **FAST, "slack": {
            "url": slack.url + "/api", "token_file": str(agent.dir / "token"), "channel": "C1"}}]
        agent.start()
        agent.event("test.fault", "<!channel>.service", "it <broke> & burned")
        eventually("it is closed", lambda: any("closed" in m["text"] for p, _, m in posted if p == "/api/chat.update"))
        self.assertTrue(all(h["authorization"] == "Bearer xoxb-the-token-of-the-tests" for _, h, _ in posted))
        new = [m for p, _, m in posted if p == "/api/chat.postMessage" and "thread_ts" not in m]
        replies = [m for p, _, m in posted if p == "/api/chat.postMessage" and "thread_ts" in m]
        edits = [m for p, _, m in posted if p == "/api/chat.update"]
        self.assertEqual(len(new), 2, "once, after it was to wait")
        self.assertEqual({m["ts"] for m in edits} | {m["thread_ts"] for m in replies}, {"1700000000.000100"})
        self.assertIn("&lt;!channel&gt;", new[0]["text"])
        self.assertNotIn("<", json.dumps(new[0]))
        self.assertNotIn("xoxb", agent.text())

    def test_incoming_webhook_gets_openings_and_ends(self):
        slack = self.sink()
        agent = self.agent({"name": "slack", **FAST, "slack": {"url": slack.url + "/services/T0/B0/topsecret-key"}})
        agent.start()
        agent.event("test.fault", "a.service")
        agent.event("test.slow", "b.service")
        eventually("b is opened", lambda: any("b.service" in m["text"] for m in slack.taken()))
        agent.event("test.worse", "b.service")
        eventually("the end", lambda: any("[closed]" in m["text"] for m in slack.taken()))
        texts = [m["text"] for m in slack.taken()]
        self.assertEqual(len([t for t in texts if "a.service" in t]), 2, texts)
        self.assertEqual(len([t for t in texts if "b.service" in t]), 1, "updates aren't sent")
        self.assertNotIn("topsecret", agent.text())


class Command(Case):
    def run_test(self, agent, *arguments):
        return subprocess.run([TAPIO, "notify", "test", "--config", str(agent.config), *arguments],
                              capture_output=True, text=True)

    def test_test_sends_a_marked_story_and_prints_each_answer(self):
        good, bad = self.sink(), self.sink(lambda *_: (500, {}, b"broken"))
        agent = self.agent(webhook("good", good), webhook("bad", bad))
        done = self.run_test(agent)
        self.assertEqual(done.returncode, 1, done)
        self.assertEqual(done.stdout.splitlines(), [
            "good (webhook): opened: taken", "good (webhook): closed: taken",
            "bad (webhook): opened: HTTP 500 Internal Server Error: broken",
            "bad (webhook): closed: HTTP 500 Internal Server Error: broken"])
        self.assertEqual(self.run_test(agent, "good").returncode, 0)
        self.assertTrue(all(n["test"] for n in good.taken()))
        self.assertEqual([n["event"] for n in good.taken()], ["opened", "closed"] * 2)
        unknown = self.run_test(agent, "nobody")
        self.assertEqual((unknown.returncode, "there are: good, bad" in unknown.stderr), (2, True), unknown)

    @unittest.skipUnless(shutil.which("openssl"), "no openssl")
    def test_https_needs_a_certificate_of_a_known_authority(self):
        sink = self.sink()
        agent = self.agent()
        for name in ("own", "other"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                            "-nodes", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                            "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", agent.dir / f"{name}.key",
                            "-out", agent.dir / f"{name}.pem"], check=True, capture_output=True)
        sink.use_tls(agent.dir / "own.pem", agent.dir / "own.key")
        for ca, expected in (("own", 0), ("other", 1)):
            agent.notify = [webhook("hook", sink)]
            agent.notify[0]["webhook"] = {"url": f"https://localhost:{sink.port}/",
                                          "tls": {"ca": str(agent.dir / f"{ca}.pem")}}
            done = self.run_test(agent)
            self.assertEqual(done.returncode, expected, done)
        self.assertIn("certificate", done.stdout)
        self.assertEqual(len(sink.taken()), 2)

    def test_check_finds_mistakes_with_line_and_column(self):
        sink = self.sink()
        agent = self.agent(webhook("a", sink, when={"serverity": "error"}))
        check = lambda: subprocess.run([TAPIO, "check", "--config", str(agent.config)], capture_output=True, text=True)
        line = agent.config.read_text().splitlines().index("  notify:") + 2
        self.assertRegex(check().stderr, rf"tapio.yaml:{line}:\d+: server.notify: receiver \"a\": when: .*did you mean `severity`")
        agent.notify = [{"name": "a", "webhook": {"url": "http://example.org/topsecret"}}]
        done = check()
        self.assertRegex(done.stderr, rf"tapio.yaml:{line}:7: server.notify: receiver \"a\": webhook.url: http://")
        self.assertNotIn("topsecret", done.stderr)
        agent.notify = [webhook("a", sink)]
        agent.notify[0]["webhook"]["secret_file"] = str(agent.dir / "none")
        done = check()
        self.assertEqual((done.returncode, "server.notify[0].webhook.secret_file: " in done.stderr), (2, True), done)
        agent.notify = [webhook("a", sink)]
        self.assertEqual(check().returncode, 0, check())


if __name__ == "__main__":
    unittest.main()
