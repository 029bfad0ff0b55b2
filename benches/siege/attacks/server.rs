//! Attacks by a server on its client.

use std::{
    io,
    net::{Shutdown, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use super::{expect_closed, noise, wait_for_end};
use crate::{
    attacker::Score,
    common::{
        Origin, PATIENCE, WebSocketPeer, pass,
        websocket::{frames, kind, siding_frame},
    },
    ground::Ground,
};

/// Streams that may be asked for and not yet answered.
const PENDING: usize = 1_000;

/// Attempts of a client to come back, in the time of an attack, that are no storm: the first five come within
/// some six seconds, and then they are further apart than that.
const ATTEMPTS: usize = 6;
const ATTEMPTS_PER_SECOND: f64 = 1.0;

/// Asks for what was not allowed, in all forms.
pub fn forbidden(ground: &Ground, score: &Score) {
    let treasure = Origin::start(drop);
    let port = treasure.address().port();
    let hosts = [
        ("tcp", format!("127.0.0.1:{port}")),
        ("http", format!("127.0.0.1:{port}")),
        ("https", format!("localhost:{port}")),
        ("tcp", format!("[::1]:{port}")),
        ("tcp", format!("[::ffff:127.0.0.1]:{port}")),
        ("tcp", format!("0.0.0.0:{port}")),
        ("http", "169.254.169.254:80".to_owned()),
        ("tcp", format!("127.0.0.1:{}", ground.allowed.port() - 1)),
        ("tcp", "unix:/run/docker.sock:0".to_owned()),
    ];
    serve(ground, score, |link| {
        ask(link, score, |stream| {
            let (protocol, target) = &hosts[stream as usize % hosts.len()];
            connect(stream, protocol, target)
        })
    });
    if treasure.accepted() > 0 {
        score.fault(format!("{} dials not allowed", treasure.accepted()));
    }
}

/// Asks for the target that is allowed, again and again, and lets none of the streams go.
pub fn streams(ground: &Ground, score: &Score) {
    let listener = TcpListener::bind(ground.allowed).expect("the port was kept for us");
    let origin = Origin::on(listener, |stream| wait_for_end(&stream));
    let target = ground.allowed.to_string();
    serve(ground, score, |link| {
        ask(link, score, |stream| {
            score.holds(origin.open());
            connect(stream, "tcp", &target)
        })
    });
}

/// Sends to a target that does not read.
pub fn floods(ground: &Ground, score: &Score) {
    /// More than the largest window and all that a kernel takes.
    const ENOUGH: usize = 32 << 20;
    let listener = TcpListener::bind(ground.allowed).expect("the port was kept for us");
    let _target = Origin::on(listener, |_stream| pass(PATIENCE));
    let target = ground.allowed.to_string();
    serve(ground, score, |link| {
        link.send_binary(&connect(1, "tcp", &target))?;
        link.read_frame()?;
        let data = siding_frame(1, kind::PROXY_DATA, 0, &[0; 16_000]);
        for _ in 0..ENOUGH / data.len() {
            if link.send_binary(&data).is_err() {
                break;
            }
        }
        expect_closed(link, score);
        score.add(1);
        wait_for_end(link.stream());
        Ok(())
    });
}

/// Sends what is no frame, or no WebSocket.
pub fn junk(ground: &Ground, score: &Score) {
    let number = AtomicUsize::new(0);
    serve(ground, score, |link| {
        let seed = number.fetch_add(1, Ordering::Relaxed);
        // It may have had enough before the last byte.
        match seed % 3 {
            0 => link.send_binary(&noise(seed, 10_000)).ok(),
            1 => link.send_raw(&noise(seed, 1 << 20)).ok(),
            _ => link
                .send_binary(&siding_frame(9, kind::PROXY_DATA, 0, b"data"))
                .ok(),
        };
        score.add(1);
        wait_for_end(link.stream());
        Ok(())
    });
}

/// Takes the client in, and attacks it, as often as it comes.
fn serve(ground: &Ground, score: &Score, attack: impl Fn(&mut WebSocketPeer) -> io::Result<()>) {
    let listener = TcpListener::bind(ground.server).expect("the port was kept for us");
    listener.set_nonblocking(true).expect("it is a listener");
    let start = Instant::now();
    let mut attempts = 0;
    while !score.is_over() {
        let Ok((stream, _)) = listener.accept() else {
            pass(super::ROUND);
            continue;
        };
        attempts += 1;
        // The client may end it at any time.
        welcome(stream).and_then(|mut link| attack(&mut link)).ok();
    }
    let most = ATTEMPTS + (ATTEMPTS_PER_SECOND * start.elapsed().as_secs_f64()) as usize;
    if attempts > most {
        score.fault(format!("the client has come back {attempts} times"));
    }
    if attempts == 0 {
        score.fault("the client has not come".to_owned());
    }
}

fn welcome(stream: TcpStream) -> io::Result<WebSocketPeer> {
    const WELCOME: &[u8] = br#"{"window":65536,"version":"0.0.0"}"#;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    stream.set_write_timeout(Some(super::PATIENCE))?;
    let mut link = WebSocketPeer::accept(stream)?;
    link.read_frame()?;
    link.send_binary(&siding_frame(0, kind::WELCOME, 0, WELCOME))?;
    Ok(link)
}

/// Asks for stream after stream, while the client answers.
fn ask(
    link: &mut WebSocketPeer,
    score: &Score,
    connect: impl Fn(u64) -> Vec<u8>,
) -> io::Result<()> {
    let mut answers = link.try_clone()?;
    let answered = &AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok((opcode, message)) = answers.read_frame() {
                if opcode == 0x2 {
                    let count = frames(&message).len();
                    answered.fetch_add(count, Ordering::Relaxed);
                }
            }
        });
        let mut asked = 0;
        while !score.is_over() {
            if asked > answered.load(Ordering::Relaxed) + PENDING {
                pass(super::ROUND);
                continue;
            }
            asked += 1;
            link.send_binary(&connect(asked as u64))?;
            score.add(1);
        }
        link.stream().shutdown(Shutdown::Both)
    })
}

/// What opens a stream to `target`, as HOST:PORT.
fn connect(stream: u64, protocol: &str, target: &str) -> Vec<u8> {
    let (host, port) = target.rsplit_once(':').expect("HOST:PORT");
    let request = match protocol {
        "tcp" => "",
        _ => r#","request":{}"#,
    };
    let connect = format!(
        r#"{{"proxy_id":"a-1-1","user_id":"user-1-{stream}","remote_host":"{host}","remote_port":{port},"protocol":"{protocol}"{request}}}"#
    );
    siding_frame(stream, kind::PROXY_CONNECT, 0, connect.as_bytes())
}
