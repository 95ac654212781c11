// Clients of node's `ws`: node ws_clients.js URL COUNT. Each sends a message and a heartbeat as the article does, a
// binary message and a Ping, checks every answer and closes with a code; prints "ok" when all have.
'use strict';

const WebSocket = require('ws');

const url = process.argv[2];
const count = Number(process.argv[3]);
let open = count;

for (let number = 0; number < count; number += 1) {
  const socket = new WebSocket(`${url}?name=node-${number}`, { perMessageDeflate: number % 2 === 1 });
  const message = JSON.stringify({ ModeCode: 'message', msg: 'grüße '.repeat(200) });
  const beat = JSON.stringify({ ModeCode: 'heart_beat', msg: number });
  const binary = Buffer.alloc(70000, number + 1);
  const wanted = new Set(['message', 'beat', 'binary', 'pong']);
  const got = (what) => {
    wanted.delete(what);
    if (wanted.size === 0) socket.close(4000 + number, 'done');
  };
  socket.on('open', () => {
    socket.send(message);
    socket.send(beat);
    socket.send(binary);
    socket.ping('are you there');
  });
  socket.on('message', (data, isBinary) => {
    if (isBinary) got(binary.equals(data) ? 'binary' : 'damaged');
    else if (data.toString() === message) got('message');
    else if (data.toString() === beat) got('beat');
  });
  socket.on('pong', (data) => got(data.toString() === 'are you there' ? 'pong' : 'damaged'));
  socket.on('error', (error) => console.log(`error ${error.message}`));
  socket.on('close', (code) => {
    if (wanted.size > 0 || code !== 4000 + number) console.log(`bad end ${code}, missing ${[...wanted]}`);
    open -= 1;
    if (open === 0) console.log('ok');
  });
}
