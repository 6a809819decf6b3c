// Calls every method of builder.ImageBuilder and prints what came back as one JSON object. Before that it prints
// "listed" once it has seen its build in the list, so that the build can be made to run until then.
//
//   node client.js HOST PROTO_FOLDER REF [CA CERT KEY]
//
// It loads the proto files at run time and knows nothing of the server but its address.
"use strict";

const fs = require("fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [host, protos, ref, ca, cert, key] = process.argv.slice(2);

const definition = loader.loadSync("builder/imgbuilder.proto", {
  includeDirs: [protos],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { ImageBuilder } = grpc.loadPackageDefinition(definition).builder;
const credentials = ca
  ? grpc.credentials.createSsl(fs.readFileSync(ca), fs.readFileSync(key), fs.readFileSync(cert))
  : grpc.credentials.createInsecure();
const client = new ImageBuilder(host, credentials, {
  "grpc.keepalive_time_ms": 10000,
  "grpc.keepalive_timeout_ms": 1000,
});

const deadline = () => ({ deadline: Date.now() + 30000 });

function unary(method, request) {
  return new Promise((resolve) => {
    client[method](request, deadline(), (error, response) => {
      resolve(error ? { code: grpc.status[error.code], message: error.details } : response);
    });
  });
}

function streamed(method, request) {
  return new Promise((resolve) => {
    const responses = [];
    const call = client[method](request, deadline());
    call.on("data", (response) => responses.push(response));
    call.on("error", (error) => resolve({ code: grpc.status[error.code], message: error.details, responses }));
    call.on("end", () => resolve({ responses }));
  });
}

async function main() {
  const source = { ref: { ref } };
  const resolved = await unary("ResolveBaseImage", { ref });
  const before = await unary("ResolveWorkspaceImage", { source });
  const responses = [];
  let logs;
  let builds;
  const build = client.Build({ source, triggered_by: "node" }, deadline());
  const ended = new Promise((resolve) => {
    build.on("error", (error) => resolve({ code: grpc.status[error.code], message: error.details }));
    build.on("end", () => resolve({}));
  });
  build.on("data", (response) => {
    responses.push(response);
    if (!logs) {
      logs = streamed("Logs", { build_ref: response.ref });
      builds = unary("ListBuilds", {});
      builds.then(() => console.log("listed"));
    }
  });
  const end = await ended;
  const log = logs ? await logs : { responses: [] };
  const output = {
    resolved,
    before,
    build: { ...end, responses },
    logs: { ...log, responses: log.responses.map((response) => response.content.toString()) },
    builds: await builds,
    after: await unary("ResolveWorkspaceImage", { source }),
    missing: await unary("ResolveBaseImage", { ref: ref.replace(/:[^:/]*$/, ":missing") }),
    nothing: await streamed("Build", {}),
    unknown: await streamed("Logs", { build_ref: "no/such:build" }),
  };
  console.log(JSON.stringify(output));
  client.close();
}

main();
