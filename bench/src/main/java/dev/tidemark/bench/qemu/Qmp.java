package dev.tidemark.bench.qemu;

import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** QEMU's machine protocol: a command a line, an answer a line, events between them passed over. */
final class Qmp {
  private static final Gson GSON = new Gson();

  private final ByteChannel channel;
  private final ByteBuffer received = ByteBuffer.allocate(1 << 16).limit(0);

  /** Takes the greeting, and leaves the mode in which only capabilities may be negotiated. */
  Qmp(ByteChannel channel) throws IOException {
    this.channel = channel;
    // An event may come before it.
    while (!answer().has("QMP")) {}
    execute("qmp_capabilities", Map.of());
  }

  /**
   * Runs a command.
   *
   * @return what it returns
   * @throws IllegalStateException if QEMU answers with an error
   * @throws IOException if the connection ends, or what comes is not QMP
   */
  JsonElement execute(String command, Map<String, ?> arguments) throws IOException {
    String request = GSON.toJson(Map.of("execute", command, "arguments", arguments));
    ByteBuffer bytes = ByteBuffer.wrap((request + "\n").getBytes(StandardCharsets.UTF_8));
    while (bytes.hasRemaining()) {
      channel.write(bytes);
    }
    while (true) {
      JsonObject answer = answer();
      if (answer.has("error")) {
        throw new IllegalStateException("QEMU answers " + answer.get("error") + " to " + request);
      }
      if (answer.has("return")) {
        return answer.get("return");
      }
    }
  }

  private JsonObject answer() throws IOException {
    String line = line();
    try {
      return JsonParser.parseString(line).getAsJsonObject();
    } catch (JsonParseException | IllegalStateException e) {
      throw new IOException("this is not QMP: " + line, e);
    }
  }

  private String line() throws IOException {
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    while (true) {
      if (!received.hasRemaining()) {
        received.clear();
        int length = channel.read(received);
        received.flip();
        if (length < 0) {
          throw new IOException("the connection ended");
        }
      }
      byte next = received.get();
      if (next == '\n') {
        return line.toString(StandardCharsets.UTF_8);
      }
      line.write(next);
    }
  }
}
