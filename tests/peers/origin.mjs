// An origin as Node makes them: each server with Node's own defaults, but for what the test asks.
//
// node origin.mjs '[{}, {"silent": true, "keepAliveTimeout": 500}]'
//
// One server for each entry, each on a free port of 127.0.0.1. `silent`: no `Keep-Alive: timeout=`
// hint. `page`: HTML. Prints `listening PORT...`, then for each request, once its body has come,
// `request METHOD URL HTTP/VERSION LENGTH CONNECTION`; lengths in bytes, connections from 1.
//
// POST, PUT      answers with the request's body, and what it saw of the head in X- fields
// GET, HEAD      answers with a text that names the request
// GET /chunked   the same in three chunks, and a trailer
// GET /page      answers with the page
// GET /held      answers only when GET /release is asked
// Upgrade        a WebSocket that echoes (RFC 6455), and says when it has been closed

import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { once } from 'node:events';

const held = [];
let connections = 0;

async function answer(request, response, { silent, page }) {
  const parts = [];
  for await (const part of request) parts.push(part);
  const body = Buffer.concat(parts);
  const { method, url, httpVersion, socket } = request;
  console.log(`request ${method} ${url} HTTP/${httpVersion} ${body.length} ${socket.number}`);
  // Said by us, Node adds no Keep-Alive field.
  if (silent) response.setHeader('Connection', 'keep-alive');
  const text = `${method} ${url}\n`;
  if (method === 'POST' || method === 'PUT') {
    response.setHeader('X-Expect', request.headers.expect ?? 'none');
    response.setHeader('X-Framing', request.headers['transfer-encoding'] ?? 'length');
    response.end(body);
  } else if (url === '/chunked') {
    response.setHeader('Trailer', 'X-Ended');
    for (const part of [text.slice(0, 3), text.slice(3, 6)]) response.write(part);
    response.addTrailers({ 'X-Ended': 'well' });
    response.end(text.slice(6));
  } else if (url === '/page') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(page);
  } else if (url === '/held') {
    held.push(() => response.end(text));
  } else {
    if (url === '/release') for (const release of held.splice(0)) release();
    response.setHeader('Content-Length', text.length);
    response.end(text);
  }
}

function upgrade(request, socket, first) {
  const accept = createHash('sha1')
    .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest('base64');
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  socket.on('error', (error) => console.log(`websocket error ${error.code}`));
  socket.on('end', () => console.log('websocket ended'));
  let pending = first;
  const take = (more) => {
    pending = Buffer.concat([pending, more]);
    for (let frame; (frame = wholeFrame(pending)); pending = pending.subarray(frame.end)) {
      if (frame.opcode === 8) {
        const code = frame.payload.length < 2 ? 1005 : frame.payload.readUInt16BE(0);
        console.log(`websocket close ${code}`);
        socket.off('data', take);
        // The server closes first (RFC 6455, 7.1.1), once its own close frame is on its way.
        socket.end(frameOf(0x88, frame.payload));
        return;
      }
      // A ping is answered by a pong of the same content, any other frame by itself.
      socket.write(frameOf(frame.opcode === 9 ? 0x8a : frame.first, frame.payload));
    }
  };
  take(Buffer.alloc(0));
  socket.on('data', take);
}

// The first frame of `bytes`, unmasked, if it is whole.
function wholeFrame(bytes) {
  if (bytes.length < 2) return null;
  const sizes = { 126: 2, 127: 8 };
  const mask = 2 + (sizes[bytes[1] & 0x7f] ?? 0);
  const start = mask + 4;
  if (bytes.length < start) return null;
  const short = bytes[1] & 0x7f;
  const length =
    short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
  if (bytes.length < start + length) return null;
  const payload = Buffer.from(bytes.subarray(start, start + length));
  for (let index = 0; index < length; index++) payload[index] ^= bytes[mask + (index & 3)];
  return { first: bytes[0], opcode: bytes[0] & 0x0f, payload, end: start + length };
}

function frameOf(first, payload) {
  const length = payload.length;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
  head[0] = first;
  if (head.length === 2) head[1] = length;
  if (head.length === 4) (head[1] = 126), head.writeUInt16BE(length, 2);
  if (head.length === 10) (head[1] = 127), head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}

const ports = [];
for (const options of JSON.parse(process.argv[2])) {
  const server = createServer((request, response) => answer(request, response, options));
  if (options.keepAliveTimeout) server.keepAliveTimeout = options.keepAliveTimeout;
  server.on('connection', (socket) => (socket.number = ++connections));
  server.on('upgrade', upgrade);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  ports.push(server.address().port);
}
console.log(`listening ${ports.join(' ')}`);
