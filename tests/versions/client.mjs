// Chroma's client from npm, as an application has it: `node client.mjs MODULES OPERATION HOST PORT < INPUT`.
//
// It knows nothing of reembed, and prints what it did or saw as one line of JSON. INPUT has `vectors`, text to
// vector: what the application's own model gives.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [modules, operation, host, port] = process.argv.slice(2);
const { ChromaClient } = createRequire(`${modules}/`)("chromadb");
const { vectors, text, added } = JSON.parse(readFileSync(0, "utf8"));
const client = new ChromaClient({ host, port: Number(port), ssl: false });
const name = "docs";

class Own {
  name = "of-the-application";
  async generate(texts) {
    return texts.map((one) => vectors[one]);
  }
}
const embeddingFunction = new Own();

async function write() {
  const texts = Object.keys(vectors);
  const made = await client.createCollection({
    name, embeddingFunction, metadata: { made: "by the application", n: 3 },
    configuration: { hnsw: { space: "cosine" } },
  });
  await made.add({
    ids: texts.map((_, n) => `r${n}`), documents: texts, metadatas: texts.map((_, n) => ({ n, half: n / 2 })),
  });
  return { count: await made.count() };
}

async function look() {
  const plain = await client.getCollection({ name });
  const own = await client.getCollection({ name, embeddingFunction });
  const also = await client.getOrCreateCollection({ name, embeddingFunction });
  const page = await plain.get({ include: ["documents", "metadatas"] });
  const first = (found) => [found.ids[0][0], Math.abs(Math.round(found.distances[0][0] * 1000) / 1000)];
  return {
    records: page.ids.map((id, n) => [id, page.documents[n], page.metadatas[n]]).sort(),
    metadata: plain.metadata?.made,
    space: plain.configuration?.hnsw?.space,
    texts: first(await own.query({ queryTexts: [text], nResults: 1 })),
    vectors: first(await plain.query({ queryEmbeddings: [vectors[text]], nResults: 1 })),
    where: (await also.get({ where: { n: { $lt: 2 } } })).ids.sort(),
    contains: (await also.get({ whereDocument: { $contains: text } })).ids,
    some: (await plain.get({ limit: 2, offset: 1 })).ids.length,
    peek: (await plain.peek({ limit: 3 })).ids.length,
    listed: (await client.listCollections()).some((one) => one.name === name),
  };
}

async function change() {
  const own = await client.getCollection({ name, embeddingFunction });
  await own.add({ ids: ["added"], documents: [added], metadatas: [{ n: 900 }] });
  await own.upsert({ ids: ["r1"], documents: [added], metadatas: [{ n: 901 }] });
  await own.update({ ids: ["r2"], metadatas: [{ n: 902 }] });
  await own.delete({ ids: ["r0"] });
  const found = await own.query({ queryTexts: [added], nResults: 2 });
  return { found: found.ids[0].sort(), count: await own.count() };
}

console.log(JSON.stringify(await { write, look, change }[operation]()));
