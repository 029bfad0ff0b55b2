//! wget as a user: one connection for many files, a mirror of a tree, and a download that goes on.

use std::{fs, path::Path};

use crate::{
    SESSION,
    common::{Nginx, Pattern, Scratch, Tunnel, run, wget},
};

/// Pages that link to each other and to what they show.
const TREE: [(&str, &str); 7] = [
    (
        "index.html",
        r#"<a href="a/">a</a> <a href="/b/page.html">b</a> <img src="shown.svg">"#,
    ),
    ("shown.svg", "<svg/>"),
    (
        "a/index.html",
        r#"<a href="../">up</a> <a href="deep/er/one.html">one</a>"#,
    ),
    ("a/deep/er/one.html", r#"<a href="two.html?q=1">two</a>"#),
    ("a/deep/er/two.html", "the last"),
    ("b/page.html", r#"<a href="empty.html">nothing</a>"#),
    ("b/empty.html", ""),
];

#[test]
fn a_tree_is_mirrored_over_one_connection() {
    let (Some(nginx), Some(mut wget)) = (Nginx::start(), wget()) else {
        return;
    };
    for (name, content) in TREE {
        nginx.publish(name, content);
    }
    let tunnel = Tunnel::to("http", nginx.plain());
    let scratch = Scratch::new();
    wget.args(["--mirror", "--no-host-directories", "--execute=robots=off"])
        .arg("--directory-prefix")
        .arg(scratch.directory())
        .arg(format!("http://{}/", tunnel.address()));
    let said = run(&mut wget, Vec::new(), SESSION).succeeded().stderr;
    for (name, content) in TREE {
        let name = name.replace("two.html", "two.html?q=1");
        let copy = fs::read_to_string(scratch.path(&name));
        assert_eq!(copy.ok().as_deref(), Some(content), "{name}\n{said}");
    }
    let requests = nginx.requests_by_connection(TREE.len());
    assert_eq!(requests.values().copied().collect::<Vec<_>>(), [7]);
    // wget connects once, and says so when it goes on with that connection.
    assert_eq!(said.matches("Reusing existing connection").count(), 6);

    // The times were kept, so at a second look nothing is fetched.
    let since = run(&mut wget, Vec::new(), SESSION).succeeded().stderr;
    assert!(since.contains("HTTP/1.1 304 Not Modified"), "{since}");
    assert!(!since.contains("HTTP/1.1 200 OK"), "{since}");
}

#[test]
fn a_download_goes_on_where_it_was_cut() {
    const LENGTH: usize = 5_000_000;
    let (Some(nginx), Some(mut wget)) = (Nginx::start(), wget()) else {
        return;
    };
    let bytes = Pattern::bytes(1, LENGTH);
    nginx.publish("long", &bytes);
    let tunnel = Tunnel::to("http", nginx.plain());
    let scratch = Scratch::new();
    let copy = scratch.write("long", &bytes[..1_234_567]);
    wget.arg("--continue").arg("--directory-prefix");
    wget.arg(scratch.directory());
    wget.arg(format!("http://{}/long", tunnel.address()));
    let said = run(&mut wget, Vec::new(), SESSION).succeeded().stderr;
    assert!(said.contains("HTTP/1.1 206 Partial Content"), "{said}");
    assert!(said.contains("Content-Length: 3765433"), "{said}");
    assert_is(&copy, &bytes);

    // There is no more of it: wget asks for bytes past the end, and takes 416 for that.
    let said = run(&mut wget, Vec::new(), SESSION).succeeded().stderr;
    assert!(said.contains("HTTP/1.1 416"), "{said}");
    assert_is(&copy, &bytes);
}

#[track_caller]
fn assert_is(file: &Path, expected: &[u8]) {
    let content = fs::read(file).expect("wget has left it there");
    assert!(content == expected, "{} bytes", content.len());
}
