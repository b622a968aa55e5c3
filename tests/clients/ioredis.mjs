// Speaks to a Redis, or to what claims to be one, with ioredis:
// PACKAGE PORT PASSWORD publish|subscribe, as redis_py.py does.

const [packageName, port, password, action] = process.argv.slice(2);
const { Redis } = await import(packageName);
const client = new Redis({
  port: Number(port),
  password: password || undefined,
  db: 1,
  connectionName: "tests",
  maxRetriesPerRequest: 0,
  retryStrategy: null,
});
const print = (value) => console.log(JSON.stringify(value));

if (action === "publish") {
  const answers = [await client.publish("orders", "one")];
  const results = await client
    .multi()
    .publish("orders", "two")
    .publish("orders", "three\nlines\n")
    .exec();
  for (const [error, answer] of results) {
    if (error) throw error;
    answers.push(answer);
  }
  print(answers);
  await client.quit();
} else {
  const finish = async () => {
    await client.unsubscribe("orders"); 
    await client.punsubscribe("stock/*"); 
    await client.quit();
  };
  const show = (channel, data) => {
    print([channel, data]);
    if (data === "end") finish();
  };
  client.on("message", show);
  client.on("pmessage", (_pattern, channel, data) => show(channel, data));
  await client.subscribe("orders");
  await client.psubscribe("stock/*");
  console.log("ready");
}
