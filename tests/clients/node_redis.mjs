// Speaks to a Redis, or to what claims to be one, with node-redis:
// PACKAGE PORT PASSWORD publish|subscribe, as redis_py.py does.

const [packageName, port, password, action] = process.argv.slice(2);
const { createClient } = await import(packageName);
const client = createClient({
  socket: { host: "127.0.0.1", port: Number(port), reconnectStrategy: false },
  password: password || undefined,
  database: 1,
  name: "tests",
});
client.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
await client.connect();
const print = (value) => console.log(JSON.stringify(value));

if (action === "publish") {
  const answers = [await client.publish("orders", "one")];
  answers.push(
    ...(await client
      .multi()
      .publish("orders", "two")
      .publish("orders", "three\nlines\n")
      .exec()),
  );
  print(answers);
  await client.quit();
} else {
  const show = async (data, channel) => {
    print([channel, data]);
    if (data === "end") {
      await client.unsubscribe("orders"); 
      await client.pUnsubscribe("stock/*");
      await client.quit();
    }
  };
  await client.subscribe("orders", show);
  await client.pSubscribe("stock/*", show);
  console.log("ready");
}
