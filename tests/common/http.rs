//! HTTP/1.1 from both ends, in raw bytes: an origin that says exactly what a test has it say and
//! counts who asked, and a user that sees exactly what came.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use rustls::ServerConfig;

use super::{Origin, Wire, connect, reset};

/// An origin that speaks HTTP. A connection's requests are served one after the other.
pub struct HttpOrigin {
    origin: Origin,
    requests: Arc<Mutex<Vec<usize>>>,
    garbled: Arc<Mutex<Vec<String>>>,
}

/// What an origin does with the connection after an exchange.
pub enum Then {
    /// Waits for the next request.
    Keep,
    /// Closes by FIN.
    Close,
    /// Closes by RST.
    Reset,
}

/// A request head as it reached the origin.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target, as written.
    pub target: String,
    /// `HTTP/1.1`.
    pub version: String,
    /// The fields in their order, values without blanks around them.
    pub fields: Vec<(String, String)>,
}

/// One request at an origin, to be answered in any bytes.
pub struct Exchange<'a> {
    /// What was asked.
    pub request: Request,
    /// Which connection of the origin this is, from 1.
    pub connection: usize,
    /// Which request of that connection this is, from 1.
    pub number: usize,
    reader: &'a mut BufReader<Wire>,
}

/// A message body, and how its end was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// The content, without framing.
    pub bytes: Vec<u8>,
    /// The trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
    /// How the end was told.
    pub ended: Ended,
}

/// How the end of a body was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There is none, by rule.
    None,
    /// Content-Length.
    Length,
    /// The last chunk.
    Chunked,
    /// The end of the connection.
    Close,
}

/// A response as it reached the user.
#[derive(Debug, Clone)]
pub struct Reply {
    /// `HTTP/1.1`.
    pub version: String,
    /// The status code.
    pub status: u16,
    /// The fields in their order.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A user's connection.
pub struct HttpUser<S = TcpStream> {
    reader: BufReader<S>,
}

/// Whether a peer has said goodbye by TLS, which is no error but where it comes in the middle of a handshake.
fn is_farewell(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let farewell = rustls::Error::AlertReceived(rustls::AlertDescription::CloseNotify);
    inner.is_some_and(|inner: &rustls::Error| *inner == farewell)
}

impl HttpOrigin {
    /// Answers every request by `answer`. An error of `answer` closes the connection.
    pub fn start(
        answer: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::on(super::origin::listener(), answer)
    }

    /// As [`HttpOrigin::start`], on a listener that is there already.
    pub fn on(
        listener: TcpListener,
        answer: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::launch(listener, None, answer)
    }

    /// As [`HttpOrigin::start`], over TLS.
    pub fn start_tls(
        config: Arc<ServerConfig>,
        answer: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        Self::launch(super::origin::listener(), Some(config), answer)
    }

    fn launch(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&mut Exchange<'_>) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let counts = Arc::clone(&requests);
        let garbled = Arc::new(Mutex::new(Vec::new()));
        let of_origin = Arc::clone(&garbled);
        let origin = Origin::on(listener, move |stream| {
            let index = {
                let mut counts = counts.lock().expect("no holder panics");
                counts.push(0);
                counts.len() - 1
            };
            // The user of the test judges what came of a connection that failed.
            let wire = Wire::accept(stream, tls.as_ref());
            if let Err(error) = serve(wire, index, &counts, &answer)
                && error.kind() == io::ErrorKind::InvalidData
                && !is_farewell(&error)
            {
                let mut garbled = of_origin.lock().expect("no holder panics");
                garbled.push(error.to_string());
            }
        });
        Self {
            origin,
            requests,
            garbled,
        }
    }

    /// Answers every request by 200 and a text that names it: see [`Exchange::greet`].
    pub fn greeting() -> Self {
        Self::start(|exchange| {
            exchange.body()?;
            exchange.greet()
        })
    }

    /// Answers every request by 200 and its own name.
    pub fn named(name: &'static str) -> Self {
        Self::start(move |exchange| {
            exchange.body()?;
            let length = name.len();
            exchange.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
            ))?;
            Ok(Then::Keep)
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.origin.address()
    }

    /// Requests by connection, in the order in which connections were accepted.
    pub fn requests(&self) -> Vec<usize> {
        self.requests.lock().expect("no holder panics").clone()
    }

    /// What reached it that is no HTTP as siding writes it.
    pub fn garbled(&self) -> Vec<String> {
        self.garbled.lock().expect("no holder panics").clone()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.origin.accepted()
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.origin.open()
    }

    /// Waits until `count` connections are open.
    pub fn wait_for_open(&self, count: usize) {
        self.origin.wait_for_open(count);
    }
}

impl Exchange<'_> {
    /// Reads the request's body by its framing.
    ///
    /// # Errors
    /// The connection's; `InvalidData` for broken framing.
    pub fn body(&mut self) -> io::Result<Body> {
        let ended = match framing_of(&self.request.fields)? {
            None => Framing::None,
            Some(framing) => framing,
        };
        read_body(self.reader, ended)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Answers by 200 and `<method> <target> on connection <n>`.
    ///
    /// # Errors
    /// The connection's.
    pub fn greet(&mut self) -> io::Result<Then> {
        let Request { method, target, .. } = &self.request;
        let text = format!("{method} {target} on connection {}\n", self.connection);
        self.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        ))?;
        Ok(Then::Keep)
    }

    /// The connection itself, with what was read ahead.
    pub fn stream(&mut self) -> &mut BufReader<Wire> {
        self.reader
    }
}

impl Request {
    /// The value of the first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }
}

impl Body {
    fn none() -> Self {
        Self {
            bytes: Vec::new(),
            trailers: Vec::new(),
            ended: Ended::None,
        }
    }
}

impl Reply {
    /// The value of the first field of that name.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.bytes).into_owned()
    }

    /// Whether the connection is to be closed after it.
    pub fn closes(&self) -> bool {
        let option = |value: &str| {
            value
                .split(',')
                .any(|o| o.trim().eq_ignore_ascii_case("close"))
        };
        self.field("connection").is_some_and(option)
    }
}

impl HttpUser {
    /// Connects to a proxy.
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(connect(address))
    }

    /// Leaves by RST, so that no socket stays behind in TIME-WAIT: for tests with thousands of users.
    pub fn leave(self) {
        reset(self.reader.into_inner());
    }
}

impl<S: Read + Write> HttpUser<S> {
    /// A user on a connection that is there already.
    pub fn of(stream: S) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .expect("the proxy takes what the user sends");
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Reads the next response to a request of `method`; interim ones are answers of their own.
    #[track_caller]
    pub fn reply(&mut self, method: &str) -> Reply {
        self.try_reply(method).expect("a whole response")
    }

    /// Reads the next response to a request of `method`.
    ///
    /// # Errors
    /// The connection's; `UnexpectedEof` when it ends within the message or before it.
    pub fn try_reply(&mut self, method: &str) -> io::Result<Reply> {
        let mut reply = self.try_head()?;
        let without_body = method == "HEAD"
            || matches!(reply.status, 100..=199 | 204 | 304)
            || (method == "CONNECT" && reply.status / 100 == 2);
        let framing = match framing_of(&reply.fields)? {
            _ if without_body => Framing::None,
            Some(framing) => framing,
            None => Framing::Close,
        };
        reply.body = read_body(&mut self.reader, framing)?;
        Ok(reply)
    }

    /// Reads the head of the next response; its body is still to be read, from [`HttpUser::stream`].
    ///
    /// # Errors
    /// As of [`HttpUser::try_reply`].
    pub fn try_head(&mut self) -> io::Result<Reply> {
        let (start, fields) = read_head(&mut self.reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut words = start.splitn(3, ' ');
        let version = words.next().unwrap_or_default().to_owned();
        let status = words.next().and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| invalid(format!("status line {start:?}")))?;
        Ok(Reply {
            version,
            status,
            fields,
            body: Body::none(),
        })
    }

    /// GET of `target` in HTTP/1.1, keeping the connection.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Reply {
        self.send(format!(
            "GET {target} HTTP/1.1\r\nHost: origin.test\r\n\r\n"
        ));
        self.reply("GET")
    }

    /// Asserts that the proxy closes the connection without a further byte.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        self.reader
            .read_to_end(&mut rest)
            .expect("the end, not a reset");
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing follows");
    }

    /// The connection itself, with what was read ahead.
    pub fn stream(&mut self) -> &mut BufReader<S> {
        &mut self.reader
    }

    /// The connection itself, without.
    pub fn into_stream(self) -> S {
        self.reader.into_inner()
    }
}

/// What tells the end of a body.
enum Framing {
    None,
    Length(u64),
    Chunked,
    Close,
}

fn serve(
    stream: Wire,
    index: usize,
    counts: &Mutex<Vec<usize>>,
    answer: &impl Fn(&mut Exchange<'_>) -> io::Result<Then>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some((start, fields)) = read_head(&mut reader)? {
        let number = {
            let mut counts = counts.lock().expect("no holder panics");
            counts[index] += 1;
            counts[index]
        };
        let request = request(&start, fields)?;
        let mut exchange = Exchange {
            request,
            connection: index + 1,
            number,
            reader: &mut reader,
        };
        match answer(&mut exchange)? {
            Then::Keep => {}
            Then::Close => {
                reader.get_mut().close();
                break;
            }
            Then::Reset => {
                reset(reader.get_ref().tcp());
                break;
            }
        }
    }
    Ok(())
}

fn request(start: &str, fields: Vec<(String, String)>) -> io::Result<Request> {
    let words: Vec<&str> = start.split(' ').collect();
    let [method, target, version] = words[..] else {
        return Err(invalid(format!("request line {start:?}")));
    };
    let [method, target, version] = [method, target, version].map(str::to_owned);
    Ok(Request {
        method,
        target,
        version,
        fields,
    })
}

/// The start line and the fields, or `None` at the end of the stream.
#[expect(clippy::type_complexity, reason = "a pair that is taken apart at once")]
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<(String, String)>)>> {
    match read_line(reader)? {
        None => Ok(None),
        Some(start) => Ok(Some((start, read_fields(reader)?))),
    }
}

/// Fields up to the empty line.
fn read_fields(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid(format!("{line:?}")))?;
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// A line without its CRLF. A bare LF is an error: siding writes none.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(invalid(format!(
            "a line that does not end by CRLF: {line:?}"
        )));
    };
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

fn framing_of(fields: &[(String, String)]) -> io::Result<Option<Framing>> {
    if let Some(coding) = field(fields, "transfer-encoding") {
        if field(fields, "content-length").is_some() {
            return Err(invalid(
                "both Transfer-Encoding and Content-Length".to_owned(),
            ));
        }
        return match coding.eq_ignore_ascii_case("chunked") {
            true => Ok(Some(Framing::Chunked)),
            false => Err(invalid(format!("Transfer-Encoding: {coding}"))),
        };
    }
    match field(fields, "content-length") {
        None => Ok(None),
        Some(value) => {
            let length = value
                .parse()
                .map_err(|_| invalid(format!("Content-Length: {value}")))?;
            Ok(Some(Framing::Length(length)))
        }
    }
}

fn read_body(reader: &mut impl BufRead, framing: Framing) -> io::Result<Body> {
    let mut body = Body::none();
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            body.ended = Ended::Length;
            read_exactly(reader, length, &mut body.bytes)?;
        }
        Framing::Close => {
            body.ended = Ended::Close;
            reader.read_to_end(&mut body.bytes)?;
        }
        Framing::Chunked => {
            body.ended = Ended::Chunked;
            loop {
                let line = read_line(reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = u64::from_str_radix(&line, 16)
                    .map_err(|_| invalid(format!("chunk size {line:?}")))?;
                if size == 0 {
                    break;
                }
                read_exactly(reader, size, &mut body.bytes)?;
                if read_line(reader)?.as_deref() != Some("") {
                    return Err(invalid("a chunk without its CRLF".to_owned()));
                }
            }
            body.trailers = read_fields(reader)?;
        }
    }
    Ok(body)
}

fn read_exactly(reader: &mut impl BufRead, length: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    let count = reader.take(length).read_to_end(bytes)?;
    match count as u64 == length {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = fields
        .iter()
        .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}
