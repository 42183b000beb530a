package dev.tidemark.bench.qemu;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.ByteChannel;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class QmpTest {
  private static final String GREETING =
      "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 1, \"major\": 11}},"
          + " \"capabilities\": [\"oob\"]}}\r\n";
  private static final String EVENT =
      "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"RESUME\"}\r\n";
  private static final String DONE = "{\"return\": {}}\r\n";

  /** Answers with what it was given, a byte at a time, and keeps what is written. */
  private static final class Script implements ByteChannel {
    private final ByteBuffer answers;
    private final ByteArrayOutputStream written = new ByteArrayOutputStream();

    Script(String... answers) {
      this.answers = ByteBuffer.wrap(String.join("", answers).getBytes(StandardCharsets.UTF_8));
    }

    @Override
    public int read(ByteBuffer to) {
      if (!answers.hasRemaining()) {
        return -1;
      }
      to.put(answers.get());
      return 1;
    }

    @Override
    public int write(ByteBuffer from) {
      // As a socket does whose buffer is nearly full.
      written.write(from.get());
      return 1;
    }

    @Override
    public boolean isOpen() {
      return true;
    }

    @Override
    public void close() {}

    List<String> lines() {
      return written.toString(StandardCharsets.UTF_8).lines().toList();
    }
  }

  @Test
  void passesOverEventsAndSendsOneLineForACommand() throws IOException {
    Script script =
        new Script(EVENT, GREETING, EVENT, DONE, EVENT, EVENT, "{\"return\": {\"x\": 5}}\n");
    Qmp qmp = new Qmp(script);
    assertEquals(
        5, qmp.execute("query-x", Map.of("a", "b\n")).getAsJsonObject().get("x").getAsInt());
    assertEquals(2, script.lines().size());
    assertTrue(script.lines().getFirst().contains("\"qmp_capabilities\""));
    assertTrue(script.lines().getLast().contains("\"b\\n\""), script.lines().getLast());
  }

  @Test
  void anErrorNamesTheCommandAndQemusWords() throws IOException {
    String error = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}}\n";
    Qmp qmp = new Qmp(new Script(GREETING, DONE, error));
    String message =
        assertThrows(IllegalStateException.class, () -> qmp.execute("migrate", Map.of()))
            .getMessage();
    assertTrue(message.contains("no such thing") && message.contains("migrate"), message);
  }

  @Test
  void whatIsNoObjectAndAnEndAreErrors() throws IOException {
    for (String answer : List.of("", "{\"return\": 1", "nonsense {\n", "[1]\n", "\n", "5\n")) {
      Qmp qmp = new Qmp(new Script(GREETING, DONE, answer));
      assertThrows(IOException.class, () -> qmp.execute("stop", Map.of()), answer);
    }
    assertThrows(IOException.class, () -> new Qmp(new Script(EVENT)));
  }
}
