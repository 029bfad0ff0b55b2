//! The two flows with the programs that people use: ssh, scp, curl, nginx, nc.
//!
//! A test whose program is not installed says so and passes, unless SIDING_REQUIRE_TOOLS=1.

mod common;

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use common::{
    AT_ONCE, Nginx, Origin, PATIENCE, Pattern, Process, Sshd, Tunnel, connections_to, curl,
    eventually, eventually_within, expect_pattern, require, run, send_pattern,
};

/// For one session of ssh or curl on a busy machine.
const SESSION: Duration = Duration::from_secs(60);

/// For what should take no time, and must not take as long as any deadline of siding.
const SOON: Duration = Duration::from_secs(10);

/// What goes through scp.
const FILE: usize = 100_000_000;

#[test]
fn ssh_runs_a_command() {
    let Some((sshd, tunnel)) = ssh_tunnel() else {
        return;
    };
    let mut command = sshd.ssh(
        tunnel.address(),
        &[],
        &["echo", "through", "the", "tunnel; exit 3"],
    );
    let ended = run(&mut command, Vec::new(), SESSION);
    assert_eq!(
        (ended.status.code(), ended.text().as_str()),
        (Some(3), "through the tunnel\n")
    );
}

#[test]
fn ssh_carries_standard_input_and_its_end() {
    let Some((sshd, tunnel)) = ssh_tunnel() else {
        return;
    };
    let bytes = Pattern::bytes(1, 3_000_000);
    let mut command = sshd.ssh(tunnel.address(), &[], &["cat"]);
    let ended = run(&mut command, bytes.clone(), SESSION).succeeded();
    assert!(ended.stdout == bytes);
}

#[test]
fn exit_of_an_interactive_session_returns_at_once() {
    let Some((sshd, tunnel)) = ssh_tunnel() else {
        return;
    };
    let before = tunnel.descriptors();
    let mut command = sshd.ssh(tunnel.address(), &["-tt"], &["sh"]);
    let mut session = Process::start_with("ssh -tt", command.stdin(Stdio::piped()));
    // Kept open: it is `exit` that ends the session, not the end of its input.
    let mut keyboard = session.stdin();
    keyboard.write_all(b"echo re''ady\n").unwrap();
    session.log().wait_for("ready");
    keyboard.write_all(b"exit\n").unwrap();
    assert!(session.wait_within(SOON).success());
    gone(&sshd, &tunnel, before);
}

#[test]
fn twenty_ssh_sessions_at_once_do_not_mix() {
    let Some((sshd, tunnel)) = ssh_tunnel() else {
        return;
    };
    let before = tunnel.descriptors();
    thread::scope(|scope| {
        for number in 0..20 {
            let (sshd, tunnel) = (&sshd, &tunnel);
            scope.spawn(move || {
                let bytes = Pattern::bytes(number, 200_000);
                let mut command = sshd.ssh(tunnel.address(), &[], &["cat"]);
                let ended = run(&mut command, bytes.clone(), SESSION).succeeded();
                assert!(ended.stdout == bytes, "session {number}");
            });
        }
    });
    gone(&sshd, &tunnel, before);
}

#[test]
#[ignore = "slow"]
fn two_hundred_ssh_sessions_in_a_row_leave_nothing_behind() {
    let Some((sshd, tunnel)) = ssh_tunnel() else {
        return;
    };
    let before = tunnel.descriptors();
    for number in 0..200 {
        let word = number.to_string();
        let mut command = sshd.ssh(tunnel.address(), &[], &["echo", &word]);
        let ended = run(&mut command, Vec::new(), SESSION).succeeded();
        assert_eq!(ended.text().trim(), word);
    }
    gone(&sshd, &tunnel, before);
}

#[test]
#[ignore = "slow"]
fn scp_copies_a_hundred_megabytes_both_ways() {
    let Some((sshd, tunnel)) = ssh_tunnel() else {
        return;
    };
    let bytes = Pattern::bytes(2, FILE);
    let here = sshd.scratch().write("here", &bytes);
    let (there, back) = (sshd.scratch().path("there"), sshd.scratch().path("back"));
    run(
        &mut sshd.scp_up(tunnel.address(), &here, &there),
        Vec::new(),
        SESSION,
    )
    .succeeded();
    assert!(fs::read(&there).unwrap() == bytes, "the copy is the file");
    run(
        &mut sshd.scp_down(tunnel.address(), &there, &back),
        Vec::new(),
        SESSION,
    )
    .succeeded();
    assert!(
        fs::read(&back).unwrap() == bytes,
        "and so is the copy of the copy"
    );
}

#[test]
fn curl_twice_through_the_forward_proxy_is_one_connection_at_nginx() {
    requests_share_one_connection(2);
}

#[test]
fn curl_a_hundred_times_through_the_forward_proxy_is_one_connection_at_nginx() {
    requests_share_one_connection(100);
}

#[test]
fn curl_through_a_reverse_proxy_shares_the_connection_too() {
    let (Some(nginx), Some(mut first), Some(mut second)) = (Nginx::start(), curl(), curl()) else {
        return;
    };
    nginx.publish("page.html", "a page\n");
    let tunnel = Tunnel::to("http", nginx.plain());
    let url = format!("http://{}/page.html", tunnel.address());
    for curl in [&mut first, &mut second] {
        assert_eq!(
            run(curl.arg(&url), Vec::new(), SESSION).succeeded().text(),
            "a page\n"
        );
    }
    let served = nginx.served("/page.html", 2);
    assert_eq!((served[0].0, served[1].1), (served[1].0, 2), "{served:?}");
}

#[test]
fn curl_downloads_a_long_file_whole() {
    let (Some(nginx), Some(mut curl)) = (Nginx::start(), curl()) else {
        return;
    };
    let bytes = Pattern::bytes(3, 20_000_000);
    nginx.publish("long", &bytes);
    let tunnel = Tunnel::to("http", nginx.plain());
    let ended = run(
        curl.arg(format!("http://{}/long", tunnel.address())),
        Vec::new(),
        SESSION,
    )
    .succeeded();
    assert!(ended.stdout == bytes);
}

#[test]
fn curl_reaches_a_tls_origin_by_connect_and_its_connection_is_never_parked() {
    let Some(nginx) = Nginx::start() else { return };
    nginx.publish("secret.html", "a secret\n");
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow(nginx.tls().to_string())
        .start();
    let before = tunnel.descriptors();
    for _ in 0..3 {
        let Some(mut curl) = curl() else { return };
        curl.arg("-x").arg(format!("http://{}", tunnel.address()));
        curl.arg("--cacert").arg(nginx.authority());
        curl.arg(format!("https://{}/secret.html", nginx.tls()));
        assert_eq!(
            run(&mut curl, Vec::new(), SESSION).succeeded().text(),
            "a secret\n"
        );
    }
    let served = nginx.served("/secret.html", 3);
    assert!(
        served.iter().all(|(_, requests)| *requests == 1),
        "{served:?}"
    );
    eventually("no connection to nginx is left", || {
        (connections_to(nginx.tls()) == 0).then_some(())
    });
    tunnel.wait_for_descriptors(before);
}

#[test]
fn curl_is_told_why_a_target_is_not_for_it() {
    let (Some(nginx), Some(mut curl)) = (Nginx::start(), curl()) else {
        return;
    };
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow("127.0.0.1:1")
        .start();
    curl.arg("-x").arg(format!("http://{}", tunnel.address()));
    let ended = run(
        curl.arg(format!("http://{}/", nginx.plain())),
        Vec::new(),
        SESSION,
    );
    assert_eq!(ended.status.code(), Some(22), "--fail: an HTTP error");
    assert!(ended.stderr.contains("403"), "{}", ended.stderr);
}

#[test]
fn nc_half_closes_and_still_gets_the_reply() {
    let Some(nc) = require("nc") else { return };
    let origin = Origin::start(|stream| {
        if expect_pattern(&stream, 4, 500_000).is_ok() && matches!((&stream).read(&mut [0]), Ok(0))
        {
            send_pattern(&stream, 5, 500_000).ok();
        }
    });
    let tunnel = Tunnel::to("tcp", origin.address());
    let mut command = Command::new(nc);
    command.args(["-N", "127.0.0.1", &tunnel.address().port().to_string()]);
    let ended = run(&mut command, Pattern::bytes(4, 500_000), SESSION).succeeded();
    assert!(
        ended.stdout == Pattern::bytes(5, 500_000),
        "{} bytes",
        ended.stdout.len()
    );
}

#[test]
fn nc_as_a_target_half_closes_and_still_gets_the_upload() {
    let Some(nc) = require("nc") else { return };
    let port = common::free_port();
    let scratch = common::Scratch::new();
    let answer = scratch.write("answer", Pattern::bytes(6, 500_000));
    let received = scratch.path("received");
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "exec \"$0\" -v -N -l 127.0.0.1 \"$1\" < \"$2\" > \"$3\"",
    ]);
    command
        .arg(nc)
        .arg(port.to_string())
        .arg(answer)
        .arg(&received);
    let mut target = Process::start("nc", &mut command);
    target.log().wait_for("Listening on");
    let tunnel = Tunnel::to("tcp", SocketAddr::from(([127, 0, 0, 1], port)));
    let mut user = tunnel.connect();
    expect_pattern(&user, 6, 500_000).unwrap();
    assert_eq!(user.read(&mut [0]).unwrap(), 0, "nc has ended its half");
    send_pattern(&user, 7, 500_000).unwrap();
    user.shutdown(Shutdown::Write).unwrap();
    assert!(target.wait_within(SOON).success());
    assert!(fs::read(received).unwrap() == Pattern::bytes(7, 500_000));
}

#[test]
fn a_download_that_is_killed_is_over_at_nginx_at_once() {
    let (Some(nginx), Some(mut curl)) = (Nginx::start(), curl()) else {
        return;
    };
    nginx.publish("huge", vec![0; 200_000_000]);
    let tunnel = Tunnel::to("tcp", nginx.plain());
    let got = nginx.scratch().path("got");
    curl.args(["--limit-rate", "10k", "--no-buffer", "--output"])
        .arg(&got);
    curl.arg(format!("http://{}/huge", tunnel.address()));
    let mut download = Process::start("curl", &mut curl);
    eventually("curl receives something", || {
        fs::metadata(&got)
            .is_ok_and(|file| file.len() > 0)
            .then_some(())
    });
    eventually("nginx has one connection", || {
        (connections_to(nginx.plain()) == 1).then_some(())
    });
    // It leaves bytes unread in its socket, so the kernel sends a reset for it.
    download.kill();
    eventually_within(AT_ONCE, "nginx has lost its connection", || {
        (connections_to(nginx.plain()) == 0).then_some(())
    });
    nginx.served("/huge", 1);
}

#[test]
fn a_download_from_an_nginx_that_is_killed_fails_at_once_and_works_again_with_the_next_one() {
    let (Some(mut nginx), Some(mut first), Some(mut second)) = (Nginx::start(), curl(), curl())
    else {
        return;
    };
    nginx.publish("huge", vec![0; 200_000_000]);
    nginx.publish("page.html", "a page\n");
    let tunnel = Tunnel::to("http", nginx.plain());
    let got = nginx.scratch().path("got");
    first
        .args(["--limit-rate", "1M", "--no-buffer", "--output"])
        .arg(&got);
    let mut download = Process::start(
        "curl",
        first.arg(format!("http://{}/huge", tunnel.address())),
    );
    eventually("curl receives something", || {
        fs::metadata(&got)
            .is_ok_and(|file| file.len() > 0)
            .then_some(())
    });
    nginx.process.kill();
    assert!(
        !download.wait_within(SOON).success(),
        "curl knows that it has not got all"
    );
    nginx.restart();
    let url = format!("http://{}/page.html", tunnel.address());
    assert_eq!(
        run(second.arg(url), Vec::new(), SESSION).succeeded().text(),
        "a page\n"
    );
}

#[test]
fn a_user_of_a_program_that_is_killed_learns_of_it_at_once() {
    let Some(nc) = require("nc") else { return };
    let port = common::free_port().to_string();
    let mut command = Command::new(nc);
    command
        .args(["-v", "-l", "127.0.0.1", &port])
        .stdin(Stdio::piped());
    let mut target = Process::start_with("nc", &mut command);
    let mut typed = target.stdin();
    target.log().wait_for("Listening on");
    let tunnel = Tunnel::to("tcp", format!("127.0.0.1:{port}").parse().unwrap());
    let (ended, report) = mpsc::channel();
    let mut user = tunnel.connect();
    typed.write_all(b"!").unwrap();
    user.read_exact(&mut [0]).unwrap();
    thread::spawn(move || ended.send(user.read(&mut [0])));
    target.kill();
    match report
        .recv_timeout(AT_ONCE)
        .expect("the user learns of it at once")
    {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// An sshd and a tunnel to it.
fn ssh_tunnel() -> Option<(Sshd, Tunnel)> {
    let sshd = Sshd::start()?;
    let tunnel = Tunnel::to("tcp", sshd.address());
    Some((sshd, tunnel))
}

/// Waits until neither a descriptor nor a connection to sshd is left of the sessions.
fn gone(sshd: &Sshd, tunnel: &Tunnel, before: (usize, usize)) {
    eventually_within(PATIENCE, "no connection to sshd is left", || {
        (connections_to(sshd.address()) == 0).then_some(())
    });
    tunnel.wait_for_descriptors(before);
}

/// `count` runs of curl, each a process of its own, through a forward proxy to nginx.
fn requests_share_one_connection(count: usize) {
    let Some(nginx) = Nginx::start() else { return };
    nginx.publish("page.html", "a page\n");
    let tunnel = Tunnel::builder()
        .proxy("forward:0")
        .allow(nginx.plain().to_string())
        .start();
    for _ in 0..count {
        let Some(mut curl) = curl() else { return };
        curl.arg("-x").arg(format!("http://{}", tunnel.address()));
        curl.arg(format!("http://{}/page.html", nginx.plain()));
        assert_eq!(
            run(&mut curl, Vec::new(), SESSION).succeeded().text(),
            "a page\n"
        );
    }
    let served = nginx.served("/page.html", count);
    assert!(
        served
            .iter()
            .all(|(connection, _)| *connection == served[0].0),
        "{served:?}"
    );
    let requests: Vec<u64> = served.iter().map(|(_, requests)| *requests).collect();
    assert_eq!(requests, (1..=count as u64).collect::<Vec<_>>());
}
