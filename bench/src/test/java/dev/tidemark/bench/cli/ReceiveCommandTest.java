package dev.tidemark.bench.cli;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.Socket;
import java.net.SocketException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A receiver that is not alone with its source. */
@Timeout(300)
class ReceiveCommandTest {
  private static final String HELLO = "{\"tidemark\":\"0.1\",\"guest\":\"process\"";

  private static Program receiver(String... more) throws IOException {
    List<String> arguments = new ArrayList<>(List.of("receive", "--json"));
    arguments.addAll(List.of(more));
    if (!arguments.contains("--listen")) {
      arguments.addAll(List.of("--listen", "tcp:127.0.0.1:0"));
    }
    return Program.start(arguments.toArray(String[]::new));
  }

  private static String address(Program receiver) throws InterruptedException {
    return Json.object(receiver.awaitLine("{\"listening\"")).get("listening").getAsString();
  }

  private static Program source(String address, String... more) throws IOException {
    List<String> arguments =
        new ArrayList<>(List.of("migrate", "--guest", "process", "--to", address, "--json"));
    arguments.addAll(List.of(more));
    if (!arguments.contains("--ram")) {
      arguments.addAll(List.of("--ram", "16MiB"));
    }
    return Program.start(arguments.toArray(String[]::new));
  }

  private static void assertVerified(Program program) throws Exception {
    Program.Ended ended = program.end();
    assertEquals(0, ended.status(), ended.errors());
    assertTrue(Json.object(ended.lastLine()).get("verified").getAsBoolean(), ended.output());
  }

  private static Socket connect(String address, String words) throws IOException {
    int port = Integer.parseInt(address.substring(address.lastIndexOf(':') + 1));
    Socket socket = new Socket("127.0.0.1", port);
    socket.getOutputStream().write(words.getBytes(StandardCharsets.UTF_8));
    return socket;
  }

  private static String answer(String address, String words) throws IOException {
    try (Socket socket = connect(address, words)) {
      socket.setSoTimeout(60_000);
      return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    } catch (SocketException e) {
      // It closed the connection with words unread: an end without an answer, too.
      return "";
    }
  }

  @Test
  void whoBringsNoGuestDoesNotEndTheWait() throws Exception {
    MigrateCommandTest.assumePagemapScan();
    List<Socket> silent = new ArrayList<>();
    try (Program receiver = receiver()) {
      String address = address(receiver);
      connect(address, "").close();
      try (Socket reset = connect(address, "GET")) {
        reset.setSoLinger(true, 0);
      }
      assertEquals("", answer(address, "GET / HTTP/1.1\r\n\r\n"));
      assertEquals("", answer(address, "{}\n"));
      assertEquals("", answer(address, "null\n"));
      assertEquals("", answer(address, HELLO + ",\"ramBytes\":16777216}\n"));
      assertEquals("", answer(address, "[".repeat(4000) + "\n"));
      // More than are heard at a time, and each of them says nothing.
      for (int i = 0; i < 20; i++) {
        silent.add(connect(address, ""));
      }
      try (Program source = source(address)) {
        assertVerified(source);
      }
      assertVerified(receiver);
    } finally {
      for (Socket socket : silent) {
        socket.close();
      }
    }
  }

  @Test
  void aLineWithoutEndIsNotReadToItsEnd() throws Exception {
    try (Program receiver = receiver()) {
      String address = address(receiver);
      try (Socket socket = connect(address, "x".repeat(4097))) {
        socket.setSoTimeout(60_000);
        try {
          assertEquals(-1, socket.getInputStream().read());
        } catch (IOException e) {
          // A reset is an end too.
          assertTrue(e.getMessage().contains("reset"), e.getMessage());
        }
      }
      assertTrue(receiver.isAlive());
    }
  }

  @Test
  void aRefusalTellsNothingOfTheHostAndDoesNotEndTheWait() throws Exception {
    MigrateCommandTest.assumePagemapScan();
    try (Program receiver = receiver("--max-ram", "16MiB")) {
      String address = address(receiver);
      for (String wish :
          new String[] {
            ",\"ramBytes\":16781312,\"nonce\":1}",
            ",\"ramBytes\":4611686018427387904,\"nonce\":1}",
            ",\"ramBytes\":-4096,\"nonce\":1}",
            ",\"ramBytes\":0,\"nonce\":1}"
          }) {
        assertEquals(
            "{\"error\":\"it cannot take this guest; its own messages say why\"}\n",
            answer(address, HELLO + wish + "\n"));
      }
      assertFalse(
          answer(
                  address,
                  "{\"tidemark\":\"0.1\",\"guest\":\"dmalog\",\"ramBytes\":8388608,\"nonce\":1}\n")
              .contains("CONFIG"));
      receiver.awaitError("tidemark: still listening; no room for a guest: 16.0 MiB of RAM are");
      try (Program source = source(address, "--ram", "32MiB")) {
        source.end().assertFails(1, "refused: the destination says \"it cannot take this guest");
      }
      try (Program source = source(address)) {
        assertVerified(source);
      }
      assertVerified(receiver);
    }
  }

  @Test
  void aSecondSourceIsToldAtOnce() throws Exception {
    MigrateCommandTest.assumePagemapScan();
    try (Program receiver = receiver()) {
      String address = address(receiver);
      try (Program first =
          source(
              address,
              "--dirty-rate",
              "max",
              "--max-bandwidth",
              "4MiB/s",
              "--downtime-limit",
              "1ms",
              "--max-rounds",
              "2",
              "--at-limit",
              "stop_and_copy")) {
        receiver.awaitLine("{\"receiving\"");
        assertEquals(
            "{\"error\":\"busy with another guest\"}\n",
            answer(address, HELLO + ",\"ramBytes\":16777216,\"nonce\":1}\nand more than that"));
        try (Program second = source(address)) {
          second.end().assertFails(1, "the destination says \"busy with another guest\"");
        }
        assertVerified(first);
        assertVerified(receiver);
      }
    }
  }

  @Test
  void aUnixSocketIsForItsUserAloneAndGoesAway(@TempDir Path folder) throws Exception {
    MigrateCommandTest.assumePagemapScan();
    Path file = folder.resolve("guest");
    try (Program receiver = receiver("--listen", "unix:" + file)) {
      assertEquals("unix:" + file, address(receiver));
      assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(file)));
      try (Program second = receiver("--listen", "unix:" + file)) {
        second.end().assertFails(1, "EADDRINUSE");
      }
      try (Program source = source("unix:" + file)) {
        assertVerified(source);
      }
      assertVerified(receiver);
    }
    try (Program source = source("unix:" + file)) {
      source.end().assertFails(1, "nobody listens there");
    }
    try (Program receiver = receiver("--listen", "unix:" + file)) {
      address(receiver);
      receiver.signal("TERM");
      receiver.end();
    }
    try (Stream<Path> left = Files.list(folder)) {
      assertEquals(List.of(), left.toList());
    }
  }
}
