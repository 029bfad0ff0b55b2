//! Headless Chromium: run once for what a page comes to, or driven by its DevTools protocol (JSON over a
//! WebSocket), as a person with a keyboard drives it.

use std::{
    net::{SocketAddr, TcpStream},
    process::Command,
};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use super::{Process, Scratch, connect, eventually, obey_no_proxy, require};

/// Chromium with a profile of its own, which talks to nobody but us; `None` where it is not installed.
pub fn chromium() -> Option<(Command, Scratch)> {
    let mut command = Command::new(require("chromium")?);
    let profile = Scratch::new();
    command.arg(format!("--user-data-dir={}", profile.directory().display()));
    // Its sandbox wants privileges that containers do not have.
    command.args(["--headless", "--no-sandbox", "--disable-gpu"]);
    command.args(["--disable-quic", "--disable-dev-shm-usage"]);
    command.args(["--no-first-run", "--disable-sync"]);
    command.args(["--disable-background-networking"]);
    command.args(["--disable-component-update", "--disable-default-apps"]);
    command.arg("--disable-extensions");
    obey_no_proxy(&mut command);
    Some((command, profile))
}

/// A browser with one tab.
pub struct Browser {
    socket: WebSocket<TcpStream>,
    session: String,
    asked: u64,
    complaints: Vec<String>,
    /// Ends before its profile goes.
    _process: Process,
    _profile: Scratch,
}

impl Browser {
    /// Opens a page; `None` where chromium is not installed.
    pub fn open(url: &str) -> Option<Self> {
        let (mut command, profile) = chromium()?;
        command.args(["--remote-debugging-port=0", "about:blank"]);
        let process = Process::start("chromium", &mut command);
        let said = process.log().wait_for("DevTools listening on ws://");
        let (_, endpoint) = said.split_once("ws://").expect("its line ends in it");
        let (address, _) = endpoint.split_once('/').expect("a URL has a path");
        let address: SocketAddr = address.parse().expect("an address and port");
        let url_of_browser = format!("ws://{}", endpoint.trim());
        let (socket, _) = tungstenite::client(url_of_browser, connect(address)).expect("DevTools");
        let mut browser = Self {
            socket,
            session: String::new(),
            asked: 0,
            complaints: Vec::new(),
            _process: process,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().expect("a name").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.navigate", json!({ "url": url }));
        Some(browser)
    }

    /// What an expression comes to in the page, or `null` if it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", asked);
        match answer.get("exceptionDetails") {
            Some(_) => Value::Null,
            None => answer["result"]["value"].take(),
        }
    }

    /// Waits until an expression is true in the page.
    pub fn wait_for(&mut self, expression: &str) {
        eventually(expression, || {
            (self.value(expression) == true).then_some(())
        });
    }

    /// Presses a key: `Tab`, `Enter`, `Escape`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            "Escape" => (27, ""),
            other => panic!("which key is {other}?"),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// Types into whatever has the focus.
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Gives the window a size, in CSS pixels, and the theme that its user likes: `light` or `dark`.
    pub fn look(&mut self, width: u32, height: u32, theme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let likes = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        self.call("Emulation.setEmulatedMedia", likes);
    }

    /// What the browser has complained about so far: exceptions, and what a policy has refused.
    pub fn complaints(&mut self) -> &[String] {
        // Whatever came before this answer has been read with it.
        self.value("0");
        &self.complaints
    }

    /// Asks by a method of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        let sent = self.socket.send(Message::text(message.to_string()));
        sent.expect("the browser is there");
        loop {
            let message = self.socket.read().expect("an answer in time");
            let Message::Text(text) = message else {
                continue;
            };
            let mut message: Value = serde_json::from_str(text.as_str()).expect("JSON");
            if message["id"] == id {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            let is_complaint = match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                // What the network has refused is the test's doing.
                Some("Log.entryAdded") => message["params"]["entry"]["source"] != "network",
                _ => false,
            };
            if is_complaint {
                self.complaints.push(message["params"].to_string());
            }
        }
    }
}
