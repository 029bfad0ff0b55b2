//! HTTP on its way: bodies by their framing, and heads that are parsed and written again.

use std::{hint::black_box, io, net::Ipv4Addr, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use siding::http::{
    Body, Coding, Edits, Forwarded, Framing, HeadLimits, Request, Response, Scheme, Source, Step,
    head_end,
};

/// Bytes of payload of each body: four batches.
const PAYLOAD: usize = 256 * 1024;

/// What a body is moved by while others wait.
const QUANTUM: usize = 16 * 1024;

/// What was sent, copied out as the kernel would.
struct Sent<'a>(&'a [u8]);

impl Source for Sent<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (taken, rest) = self.0.split_at(into.len().min(self.0.len()));
        into[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        Ok(taken.len())
    }

    fn unread(&mut self, _: &[u8]) {
        unreachable!("nothing follows these messages");
    }
}

/// Bodies, moved from their framing to ours.
pub fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("body");
    group.throughput(Throughput::Bytes(PAYLOAD as u64));
    let payload = vec![b'x'; PAYLOAD];
    let mut bench = |name: &str, chunk: usize, framing, coding, sent: &[u8]| {
        let mut out = vec![0; QUANTUM];
        group.bench_function(BenchmarkId::new(name, chunk), |bencher| {
            bencher.iter(|| {
                let mut body = Body::new(framing, coding);
                let mut source = Sent(sent);
                while let Step::Moved(moved) = body
                    .transfer(&mut out, &mut source)
                    .expect("a well-formed body")
                {
                    black_box(&out[..moved]);
                }
            });
        });
    };
    let length = Framing::Length(PAYLOAD as u64);
    bench("length", PAYLOAD, length, Coding::Plain, &payload);
    bench(
        "until close",
        PAYLOAD,
        Framing::UntilClose,
        Coding::Chunked,
        &payload,
    );
    // As a log is followed, as pages are made, as files are sent.
    for chunk in [16, 1024, 32 * 1024] {
        let sent = chunked(&payload, chunk);
        for (name, coding) in [
            ("chunks", Coding::Chunked),
            ("chunks decoded", Coding::Plain),
        ] {
            bench(name, chunk, Framing::Chunked, coding, &sent);
        }
    }
    group.finish();
}

fn chunked(payload: &[u8], chunk: usize) -> Vec<u8> {
    let mut sent = Vec::new();
    for chunk in payload.chunks(chunk) {
        sent.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        sent.extend_from_slice(chunk);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(b"0\r\n\r\n");
    sent
}

/// Heads: found, parsed, and written for the far side.
pub fn heads(criterion: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut group = criterion.benchmark_group("head");
    let mut out = Vec::with_capacity(4096);
    for (name, head) in [("curl", CURL), ("browser", BROWSER)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(BenchmarkId::new("request parsed", name), |bencher| {
            bencher.iter(|| {
                let end = head_end(black_box(head), 0).expect("a whole head");
                black_box(Request::parse(&head[..end], &limits).expect("a good one"));
            });
        });
        for (how, forwarded) in [("forward", None), ("http", Some(FORWARDED))] {
            let edits = Edits {
                host: None,
                forwarded,
            };
            let request = Request::parse(head, &limits).expect("a good one");
            let name = BenchmarkId::new(format!("request written, {how}"), name);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    black_box(&request).write_to(&mut out, &edits);
                    black_box(out.len())
                });
            });
        }
    }
    let asked = Request::parse(BROWSER, &limits)
        .expect("a good one")
        .asked();
    for (name, head) in [("short", SHORT), ("page", PAGE)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(BenchmarkId::new("response parsed", name), |bencher| {
            bencher.iter(|| {
                let end = head_end(black_box(head), 0).expect("a whole head");
                black_box(Response::parse(&head[..end], &asked, &limits).expect("a good one"));
            });
        });
        let response = Response::parse(head, &asked, &limits).expect("a good one");
        group.bench_function(BenchmarkId::new("response written", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&response).write_to(&mut out, true, Duration::from_secs(1_765_020_008));
                black_box(out.len())
            });
        });
    }
    group.finish();
}

const FORWARDED: Forwarded = Forwarded {
    user: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
    proto: Scheme::Http,
    trusted: false,
};

const CURL: &[u8] =
    b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n";

const BROWSER: &[u8] = b"GET /shop/search?q=narrow+gauge&page=2 HTTP/1.1\r\n\
Host: shop.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\n\
Sec-Fetch-Dest: document\r\n\
Referer: https://shop.example.com/shop/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=6f1b0e2c9a7d4b53a1f0c8e2d7b94a60; theme=dark; consent=all; seen=1765020008\r\n\
If-None-Match: \"5d8c72a5edda8d6a\"\r\n\
\r\n";

const SHORT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n";

const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx\r\n\
Date: Sat, 06 Dec 2025 11:20:08 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Transfer-Encoding: chunked\r\n\
Connection: keep-alive\r\n\
Keep-Alive: timeout=75\r\n\
Vary: Accept-Encoding, Cookie\r\n\
Cache-Control: private, no-cache, must-revalidate\r\n\
ETag: \"5d8c72a5edda8d6b\"\r\n\
Set-Cookie: session=6f1b0e2c9a7d4b53a1f0c8e2d7b94a60; Path=/; HttpOnly; Secure; SameSite=Lax\r\n\
Strict-Transport-Security: max-age=31536000; includeSubDomains\r\n\
Content-Security-Policy: default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'\r\n\
X-Content-Type-Options: nosniff\r\n\
X-Frame-Options: SAMEORIGIN\r\n\
Referrer-Policy: strict-origin-when-cross-origin\r\n\
X-Request-Id: 0f8fad5b-d9cb-469f-a165-70867728950e\r\n\
\r\n";
