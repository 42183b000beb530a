package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.stream.SectionHandler;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Memfd;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What a source makes of what a destination says that is no receiver of ours. */
@Timeout(300)
class DestinationsWordTest {
  private static final String EVIL_JSON =
      "{\"error\":\"\\u001b]0;owned\\u0007\\u009b2J\\u202eevil\\u2028\\r\\ntidemark: well\"";

  @BeforeEach
  void assumeAGuest() {
    MigrateCommandTest.assumePagemapScan();
  }

  private static void send(Socket socket, String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment memory = arena.allocate(bytes.length);
      MemorySegment.copy(bytes, 0, memory, ValueLayout.JAVA_BYTE, 0, bytes.length);
      IoVectors vectors = new IoVectors(arena, 1);
      vectors.add(memory);
      socket.writeFully(vectors);
    }
  }

  /** Takes a guest as the protocol has it, runs nothing, and reports what it was told to. */
  private static void take(Socket socket, long bytes, String report) {
    send(socket, "{\"error\":null}\n");
    try (Memfd memfd = Memfd.create("guest", bytes);
        Mapping memory = memfd.map()) {
      StreamReader reader =
          new StreamReader(
              socket,
              Wire.MACHINE,
              List.of(new RamBlock("ram", memory.segment())),
              List.of(
                  new SectionHandler(
                      Wire.STATE, 0, 1, in -> in.bytes(MemorySegment.ofArray(new byte[in.be32()]))),
                  new SectionHandler(Wire.DIGEST, 0, 1, in -> in.be64())));
      reader.loadUntilHandover();
      reader.shut(0);
      if (!report.isEmpty()) {
        send(socket, report + "\n");
      }
    }
  }

  private static Program.Ended migrate(boolean takes, String words) throws Exception {
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0))) {
      Thread destination =
          Thread.ofPlatform()
              .daemon()
              .start(
                  () -> {
                    try (Socket socket = listener.accept()) {
                      long bytes =
                          Wire.receive(socket, Wire.Hello.class, Duration.ofSeconds(60)).ramBytes();
                      if (takes) {
                        take(socket, bytes, words);
                      } else {
                        send(socket, words + "\n");
                      }
                    }
                  });
      try (Program source =
          Program.start(
              "migrate",
              "--guest",
              "process",
              "--ram",
              "16MiB",
              "--json",
              "--to",
              "tcp:127.0.0.1:" + listener.localAddress().getPort())) {
        Program.Ended ended = source.end();
        destination.join();
        String all = ended.output() + ended.errors();
        assertFalse(
            all.replace("\n", "")
                .codePoints()
                .anyMatch(c -> Text.escaped(Character.toString(c)).length() > 2),
            all);
        return ended;
      }
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        "garbage",
        "null",
        "{}",
        "{\"verified\":false}",
        "{\"verified\":true}",
        "{\"verified\":true,\"memoryDigest\":1,\"firstRunNanos\":-5,\"digestNanos\":-7}",
        "{\"verified\":true,\"firstRunNanos\":9223372036854775807}",
        "{\"verified\":true,\"error\":\"but not quite\"}",
        "{\"verified\":\"maybe\",\"memoryDigest\":\"x\"}",
        EVIL_JSON + "}"
      })
  void isNotTakenForAVerifiedGuest(String report) throws Exception {
    Program.Ended ended = migrate(true, report);
    ended.assertFails(1, "; the guest is at the destination, and was not verified");
    assertEquals(1, ended.output().lines().count(), ended.output());
    JsonObject summary = Json.object(ended.lastLine());
    assertEquals("completed", summary.get("status").getAsString());
    assertFalse(summary.get("verified").getAsBoolean());
    assertTrue(ended.errors().contains(summary.get("reason").getAsString()), ended.errors());
    assertTrue(summary.get("downtimeMillis").isJsonNull(), ended.output());
  }

  @Test
  void ofMemoryThatItHasNotHadIsNotEnough() throws Exception {
    migrate(true, "{\"verified\":true,\"memoryDigest\":42}")
        .assertFails(1, "the memory at the handover differs: digest ");
  }

  @Test
  void isQuotedWhenItRefuses() throws Exception {
    Program.Ended ended = migrate(false, EVIL_JSON + "}");
    ended.assertFails(1, "refused: the destination says \"\\u001b]0;owned\\u0007\\u009b2J\\u202e");
    assertEquals("failed", Json.object(ended.lastLine()).get("status").getAsString());
  }

  @Test
  void isShortInATerminal() throws Exception {
    Program.Ended ended = migrate(false, "{\"error\":\"" + "a".repeat(3000) + "\"}");
    ended.assertFails(1, "...\"");
    assertTrue(ended.errors().length() < 1500, ended.errors());
  }
}
