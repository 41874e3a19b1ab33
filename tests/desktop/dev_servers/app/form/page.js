import { revalidatePath } from "next/cache";

export const dynamic = "force-dynamic";

async function say(form) {
  "use server";
  globalThis.said = form.get("word");
  revalidatePath("/form");
}

export default function Form() {
  return (
    <form action={say}>
      <input name="word" defaultValue="hello" />
      <button id="more">say</button>
      <p id="said">{globalThis.said ?? "-"}</p>
    </form>
  );
}
