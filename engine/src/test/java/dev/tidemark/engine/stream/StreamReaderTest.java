package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import com.sun.management.ThreadMXBean;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Streams with something wrong in them. */
@Timeout(300)
class StreamReaderTest {
  private static final int OLD = 7;
  private static final int NEW = 0x11;

  /** A good stream: page 2 of block ram is sent, page 1 is zero. */
  private static Map<String, String> good() {
    Map<String, String> fields = new LinkedHashMap<>();
    fields.put("magic", "5145564d");
    fields.put("version", "00000003");
    fields.put("configuration", "07");
    fields.put("machine length", "00000004");
    fields.put("machine", "6e6f6e65");
    fields.put("start", "01");
    fields.put("start id", "00000002");
    fields.put("idstr", "0372616d");
    fields.put("instance", "00000000");
    fields.put("ram version", "00000004");
    fields.put("total", "0000000000004004");
    fields.put("first name", "0372616d");
    fields.put("first length", "0000000000003000");
    fields.put("second name", "0476676131");
    fields.put("second length", "0000000000001000");
    fields.put("list end", "0000000000000010");
    fields.put("start footer", "7e");
    fields.put("start footer id", "00000002");
    fields.put("part", "02");
    fields.put("part id", "00000002");
    fields.put("page", "0000000000002008");
    fields.put("page block", "0372616d");
    fields.put("page bytes", "11".repeat(4096));
    fields.put("zero", "0000000000001022");
    fields.put("zero byte", "00");
    fields.put("part end", "0000000000000010");
    fields.put("part footer", "7e");
    fields.put("part footer id", "00000002");
    fields.put("end", "03");
    fields.put("end id", "00000002");
    fields.put("end end", "0000000000000010");
    fields.put("end footer", "7e");
    fields.put("end footer id", "00000002");
    fields.put("full", "04");
    fields.put("full id", "00000003");
    fields.put("full name", "03637075");
    fields.put("full instance", "00000001");
    fields.put("full version", "00000002");
    fields.put("full data", "abcd");
    fields.put("full footer", "7e");
    fields.put("full footer id", "00000003");
    fields.put("eof", "00");
    return fields;
  }

  private static String subsection(String name, String version, String data) {
    return "05"
        + "%02x".formatted(name.length())
        + HexFormat.of().formatHex(name.getBytes())
        + version
        + data;
  }

  private static byte[] bytes(Map<String, String> fields) {
    return HexFormat.of().parseHex(String.join("", fields.values()));
  }

  /** What is put in a field's place, and what the reader says to it. */
  static Stream<Arguments> wrongFields() {
    String page = "0000000000002008" + "0372616d" + "11".repeat(4096);
    return Stream.of(
        arguments("magic", "5145564e", "magic: expected 0x5145564d, found 0x5145564e"),
        arguments("magic", "47455420", "magic"),
        arguments("version", "00000002", "version: expected 3, found 2"),
        arguments("version", "ffffffff", "version: expected 3, found 4294967295"),
        arguments("configuration", "01", "first element: expected 07 (configuration), found 0x1"),
        arguments("machine length", "00000100", "machine's name: expected at most 255, found 256"),
        arguments("machine length", "ffffffff", "machine's name"),
        arguments("machine", "6e6f6e66", "machine: expected none, found nonf"),
        arguments("machine", "6e0a1b65", "machine: expected none, found n??e"),
        // C1 (8-bit CSI), right-to-left override, line separator, private use.
        arguments("machine length", "0000000e" + "61c29be280aee280a8ee808062ff", "found a????b"),
        arguments("start", "05", "subsection"),
        arguments(
            "start",
            subsection("configuration/capabilities", "00000001", "00000001" + "0a"),
            "subsection configuration/capabilities: the source has a capability that both"),
        arguments(
            "start",
            subsection("configuration/uuid", "00000001", "00".repeat(16)),
            "subsection configuration/uuid: turn off validate-uuid at the source"),
        arguments(
            "start",
            subsection("configuration/target-page-bits", "00000001", "0000000e"),
            "subsection configuration/target-page-bits: the source's pages are not of 4096"),
        arguments(
            "start",
            subsection("configuration/news", "00000001", ""),
            "subsection configuration/news: it is not known here"),
        arguments("start", "02", "section part: expected it between"),
        arguments("start", "03", "section end: expected it between"),
        arguments("start", "04", "full section: expected it after the ram section's end"),
        arguments("start", "06", "element: expected 00 to 04 or 08, found 0x6"),
        arguments("start", "09", "element"),
        arguments("start", "7e", "element"),
        arguments("start", "00", "end of file: expected after the ram section's end"),
        arguments(
            "start",
            "0800000000",
            "command: expected 1 (OPEN_RETURN_PATH), 2 (PING) or 11 (SWITCHOVER_START), found 0"),
        arguments("start", "08000c0000", "(SWITCHOVER_START), found 12"),
        arguments("start", "08ffff0000", "(SWITCHOVER_START), found 65535"),
        arguments("start", "0800030010", "command 3 (POSTCOPY_ADVISE): postcopy is not supported"),
        arguments("part", "0800040000", "command 4 (POSTCOPY_LISTEN): postcopy is not supported"),
        arguments("part", "0800050000", "command 5 (POSTCOPY_RUN): postcopy is not supported here"),
        arguments("part", "0800060002", "command 6 (POSTCOPY_RAM_DISCARD): postcopy is not"),
        arguments("part", "0800070004", "command 7 (PACKAGED): postcopy is not supported here"),
        arguments("start", "0800080000", "command 8 (ENABLE_COLO): COLO is not supported here"),
        arguments("part", "0800090000", "command 9 (POSTCOPY_RESUME): postcopy is not supported"),
        arguments("part", "08000a0004", "command 10 (RECV_BITMAP): postcopy is not supported"),
        arguments("end", "08000b0001", "SWITCHOVER_START: expected 0 bytes of data, found 1"),
        arguments("start", "08000200040000000001", "PING: expected OPEN_RETURN_PATH before it"),
        arguments("start", "0800010001", "OPEN_RETURN_PATH: expected 0 bytes of data, found 1"),
        arguments("start", "08000100000800010000", "OPEN_RETURN_PATH: expected it once"),
        arguments("start", "08000100000800020008", "PING: expected 4 bytes of data, found 8"),
        arguments("idstr", "0372616e", "section start: expected ram, found ran"),
        arguments("instance", "00000001", "expected instance 0 version 4, found instance 1"),
        arguments("ram version", "00000005", "expected instance 0 version 4, found"),
        arguments("total", "0000000000004008", "flags: expected 0x4"),
        arguments("total", "0000000000004001", "flags: expected 0x4"),
        arguments("total", "0000000000004024", "flags: expected 0x4"),
        arguments("total", "0000000000004010", "flags: expected 0x4"),
        arguments("total", "0000000000004804", "whole pages"),
        arguments("total", "0000000000003004", "memory size in bytes: expected 16384, found 12288"),
        arguments("total", "0000000000005004", "memory size in bytes: expected 16384, found 20480"),
        arguments("total", "fffffffffffff004", "found 18446744073709547520"),
        arguments("first name", "0372616e", "block: expected one of [ram, vga1], found ran"),
        arguments("first name", "00", "block: expected one of [ram, vga1], found "),
        arguments("first length", "0000000000003800", "length of block ram in bytes: expected 12"),
        arguments("first length", "0000000000004000", "length of block ram in bytes: expected 12"),
        arguments("first length", "0000000000000000", "length of block ram in bytes: expected 12"),
        arguments("first length", "8000000000003000", "length of block ram in bytes: expected 12"),
        arguments("second name", "0372616d", "block list: expected each block once"),
        arguments("second length", "0000000000002000", "length of block vga1"),
        arguments("list end", "0000000000000020", "after the block list: expected 0x10"),
        arguments("list end", "0000000000000200", "MULTIFD_FLUSH (0x200): multifd is not"),
        arguments("page", "0000000000000200", "MULTIFD_FLUSH (0x200): multifd is not supported"),
        arguments("page", "0000000000002100", "COMPRESS_PAGE (0x100): compressed pages are not"),
        arguments("page", "0000000000002140", "COMPRESS_PAGE (0x100): compressed pages are not"),
        arguments("page", "0000000000000080", "HOOK (0x80): RDMA is not supported here"),
        arguments("page", "0000000000002040", "XBZRLE (0x40): deltas are not supported here"),
        arguments("page", "0000000000002060", "XBZRLE (0x40): deltas are not supported here"),
        arguments("list end", page, "after the block list: expected 0x10"),
        arguments("start footer", "7f", "expected 7e (footer), found 0x7f"),
        arguments("start footer id", "00000003", "id in the footer: expected 2, found 3"),
        arguments("part", "01", "section id: expected a new one, found 2 again"),
        arguments(
            "part",
            "010000000903" + "72616d" + "00000000" + "00000004",
            "section start: expected the ram section's once, found another"),
        arguments("part", "04", "full section: expected it after"),
        arguments("part", "00", "end of file: expected after the ram section's end"),
        arguments("part id", "00000003", "section id: expected 2, found 3"),
        arguments("page", "0000000000003008", "offset in block ram: expected less than 0x3000"),
        arguments("page", "8000000000000008", "offset in block ram: expected less than 0x3000"),
        arguments("page", "fffffffffffff008", "offset in block ram: expected less than 0x3000"),
        arguments("page", "0000000000002408", "ram record's flags"),
        arguments("page", "0000000000002028", "a block's name, found the flag CONTINUE"),
        arguments("page", "0000000000001022", "a block's name, found the flag CONTINUE"),
        arguments("page", "0000000000002000", "flags: expected 0x2, 0x8, 0x10, 0x22 or 0x28"),
        arguments("page", "000000000000200a", "ram record's flags"),
        arguments("page", "0000000000002018", "ram record's flags"),
        arguments("page", "0000000000002030", "ram record's flags"),
        arguments("page", "0000000000002004", "ram record's flags"),
        arguments("page", "0000000000002048", "ram record's flags"),
        arguments("page", "0000000000002040", "ram record's flags"),
        arguments("page", "0000000000002010", "offset 0, found 0x2000"),
        arguments("page block", "0372616e", "block: expected one of"),
        arguments("page block", "0476676131", "offset in block vga1: expected less than 0x1000"),
        arguments("zero", "0000000000003022", "offset in block ram"),
        arguments("zero", "000000000000102a", "ram record's flags"),
        arguments("zero byte", "01", "zero page's byte: expected 0, found 0x1"),
        arguments("part end", "7e00000002000000", "ram record's flags"),
        arguments("part footer", "02", "expected 7e (footer)"),
        arguments("part footer id", "00000000", "id in the footer"),
        arguments("end", "05", "subsection"),
        arguments("end", "00", "end of file: expected after the ram section's end"),
        arguments("end", "0800010000080002000400000000" + "00", "end of file"),
        arguments("end id", "00000001", "section id"),
        arguments("end end", "0000000000000020", "ram record's flags"),
        arguments("end footer", "00", "expected 7e (footer)"),
        arguments("full", "02", "section part: expected it between"),
        arguments("full", "03", "section end: expected it between"),
        arguments("full", "01", "section start: expected it before the ram section's end"),
        arguments("full", "00", "end of file: section cpu/1 never came"),
        arguments("full", "0800010000080002000400000000", "last PING: section cpu/1 never came"),
        arguments("full id", "00000002", "section id: expected a new one, found 2 again"),
        arguments("full name", "03637076", "section cpv/1 is not known here"),
        arguments("full instance", "00000002", "section cpu/2 is not known here"),
        arguments("full instance", "80000000", "section cpu/2147483648 is not known here"),
        arguments("full version", "00000003", "version of section cpu: expected 2, found 3"),
        arguments("full footer", "00", "expected 7e (footer)"),
        arguments("full footer id", "00000002", "id in the footer: expected 3, found 2"),
        arguments(
            "eof",
            "0400000004" + "03637075" + "00000001" + "00000002",
            "section cpu: expected it once, found it again"),
        arguments("eof", "08000100000800020004000000000800020004", "element after the last PING"),
        arguments("eof", "01", "section start: expected it before the ram section's end"));
  }

  @ParameterizedTest(name = "{0} = {1}")
  @MethodSource("wrongFields")
  void aWrongFieldIsNamedWithItsPlaceAndTouchesNothing(
      String field, String replacement, String message) throws Exception {
    Map<String, String> fields = good();
    int offset = 0;
    boolean pageIsRight = false;
    for (Map.Entry<String, String> entry : fields.entrySet()) {
      if (entry.getKey().equals(field)) {
        break;
      }
      offset += entry.getValue().length() / 2;
      pageIsRight |= entry.getKey().equals("page bytes");
    }
    fields.put(field, replacement);
    try (Destination destination = new Destination()) {
      StreamException e =
          assertThrows(StreamException.class, () -> destination.load(bytes(fields)));
      assertTrue(e.getMessage().contains(message), e.getMessage());
      assertFalse(e.getMessage().contains("\n"), e.getMessage());
      int at = Integer.parseInt(e.getMessage().replaceFirst("stream byte (\\d+):.*", "$1"));
      // The place is the field's or of one that its new value reaches to; names come after it.
      assertTrue(
          at >= offset - 8 && at <= offset + replacement.length() / 2 + 8,
          "field at " + offset + ": " + e.getMessage());
      boolean zeroIsRight = pageIsRight && !field.startsWith("zero");
      destination.check(pageIsRight ? NEW : OLD, zeroIsRight ? 0 : OLD);
    }
  }

  @Test
  void theStreamThatTheOthersAreMadeOfIsGood() throws Exception {
    try (Destination destination = new Destination()) {
      StreamReader reader = destination.load(bytes(good()));
      destination.check(NEW, 0);
      assertEquals(1, reader.pagesRead());
      assertEquals(1, reader.zeroPagesRead());
    }
  }

  @Test
  void theSwitchoversStartIsOfNoConsequence() throws Exception {
    Map<String, String> fields = good();
    fields.put("end", "08000b0000" + "03");
    try (Destination destination = new Destination()) {
      destination.load(bytes(fields));
      destination.check(NEW, 0);
    }
  }

  @Test
  void aStreamCutAtAnyByteIsAnErrorThatNamesTheByte() throws Exception {
    byte[] stream = bytes(good());
    try (Destination destination = new Destination()) {
      for (int length = 0; length < stream.length; length++) {
        byte[] cut = Arrays.copyOf(stream, length);
        StreamException e = assertThrows(StreamException.class, () -> destination.load(cut));
        String message = "stream ended at byte " + length + " inside ";
        assertTrue(e.getMessage().startsWith(message), e.getMessage());
        destination.checkNothingElseChanged();
      }
    }
  }

  @Test
  void garbageNeverDoesAnythingButFailOrLoad() throws Exception {
    SplittableRandom random = Seed.random();
    byte[] good = bytes(good());
    int failed = 0;
    try (Destination destination = new Destination()) {
      for (int i = 0; i < 1000; i++) {
        byte[] stream = good.clone();
        for (int flips = random.nextInt(1, 4); flips > 0; flips--) {
          // Fields matter more than the page's bytes.
          int at = random.nextInt(stream.length - 4000);
          stream[at < 180 ? at : at + 4000] ^= (byte) (1 << random.nextInt(8));
        }
        try {
          destination.load(stream);
        } catch (StreamException e) {
          failed++;
        }
        destination.memory.checkCanaries();
        destination.other.checkCanaries();
      }
    }
    assertTrue(failed > 500, failed + " of 1000 failed");
  }

  @Test
  void whatFollowsTheEndIsADescriptionOrNothing() throws Exception {
    String good = String.join("", good().values());
    assertEquals(Optional.empty(), describe(good));
    assertEquals(Optional.of("{}"), describe(good + "06" + "00000002" + "7b7d"));
    assertWrongDescription(good + "05", "expected 06 (description) or nothing, found 0x5");
    assertWrongDescription(good + "06ffffffff", "found 4294967295");
    assertWrongDescription(good + "0600", "stream ended at byte");
    assertWrongDescription(good + "06000000027b", "stream ended at byte");
  }

  private static void assertWrongDescription(String hex, String message) {
    StreamException e = assertThrows(StreamException.class, () -> describe(hex));
    assertTrue(e.getMessage().contains(message), e.getMessage());
  }

  private static Optional<String> describe(String hex) throws Exception {
    try (Destination destination = new Destination();
        Connection connection = Connection.giving(HexFormat.of().parseHex(hex))) {
      StreamReader reader = destination.reader(connection);
      reader.loadUntilHandover();
      return reader.description();
    }
  }

  @Test
  void sectionsThatEveryQemuSendsAreSkipped() throws Exception {
    Map<String, String> fields = good();
    fields.put(
        "full",
        "04"
            + "00000000"
            + "0574696d6572"
            + "00000000"
            + "00000002"
            + "ff".repeat(24)
            + "7e00000000"
            + "04"
            + "00000005"
            + "0b676c6f62616c7374617465"
            + "00000000"
            + "00000001"
            + "ff".repeat(104)
            + "7e00000005"
            + "04");
    try (Destination destination = new Destination()) {
      destination.load(bytes(fields));
      destination.check(NEW, 0);
    }
  }

  @Test
  void skippedSectionsComeOnce() throws Exception {
    String timer = "0574696d6572" + "00000000" + "00000002" + "ff".repeat(24);
    Map<String, String> fields = good();
    fields.put(
        "full",
        "04" + "00000009" + timer + "7e00000009" + "04" + "0000000a" + timer + "7e0000000a" + "04");
    try (Destination destination = new Destination()) {
      StreamException e =
          assertThrows(StreamException.class, () -> destination.load(bytes(fields)));
      assertTrue(e.getMessage().contains("section timer/0 is not known here"), e.getMessage());
    }
  }

  @Test
  void aLengthThatIsOnlyClaimedAllocatesNothing() throws Exception {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    String good = String.join("", good().values());
    for (int i = 0; i < 3; i++) {
      try (Destination destination = new Destination();
          Connection connection =
              Connection.giving(HexFormat.of().parseHex(good + "06" + "01000000" + "7b7d"));
          StreamReader reader = destination.reader(connection)) {
        reader.loadUntilHandover();
        long before = threads.getCurrentThreadAllocatedBytes();
        assertThrows(StreamException.class, reader::description);
        long bytes = threads.getCurrentThreadAllocatedBytes() - before;
        assertTrue(bytes < 4 << 20, bytes + " bytes allocated for a description of 2 bytes");
      }
    }
  }

  @Test
  void aLongDescriptionArrives() throws Exception {
    byte[] json = new byte[300_001];
    Arrays.fill(json, (byte) ' ');
    json[300_000] = '.';
    String good = String.join("", good().values());
    String found =
        describe(good + "06" + "000493e1" + HexFormat.of().formatHex(json)).orElseThrow();
    assertEquals(new String(json, StandardCharsets.UTF_8), found);
  }

  /** Without this the buffers wait for a collection, which a VMM may have turned off. */
  @Test
  void aRefusedStreamLeavesNoNativeMemory() throws Exception {
    BufferPoolMXBean direct =
        ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
            .filter(pool -> pool.getName().equals("direct"))
            .findFirst()
            .orElseThrow();
    List<StreamReader> kept = new ArrayList<>();
    long before = 0;
    for (int i = 0; i < 21; i++) {
      if (i == 1) {
        before = direct.getMemoryUsed();
      }
      try (Destination destination = new Destination();
          Connection connection = Connection.giving(new byte[] {1, 2, 3, 4});
          StreamReader reader = destination.reader(connection)) {
        assertThrows(StreamException.class, reader::loadUntilHandover);
        kept.add(reader);
      }
    }
    long left = direct.getMemoryUsed() - before;
    // One buffer has 256 KiB; some bytes of each socket and errno are collected later.
    assertTrue(left < 64 << 10, left + " bytes left by " + kept.size() + " readers");
  }

  @Test
  void aMachineNameThatNoReaderTakesIsRefusedAtBothEnds() throws Exception {
    String longName = "x".repeat(256);
    try (Connection connection = Connection.open();
        StreamWriter writer = new StreamWriter(connection.near(), new Throttle(0))) {
      assertThrows(IllegalArgumentException.class, () -> writer.begin(longName));
      assertThrows(
          IllegalArgumentException.class,
          () -> new StreamReader(connection.far(), longName, List.of(), List.of()));
    }
  }

  @Test
  void aHandlersFailureIsItsOwn() throws Exception {
    IllegalStateException mine = new IllegalStateException("no such register");
    SectionHandler handler =
        new SectionHandler(
            "cpu",
            1,
            2,
            input -> {
              throw mine;
            });
    try (Destination destination = new Destination();
        Connection connection = Connection.giving(bytes(good()))) {
      StreamReader reader =
          new StreamReader(
              connection.near(),
              "none",
              List.of(destination.memory.block, destination.other.block),
              List.of(handler));
      assertEquals(mine, assertThrows(IllegalStateException.class, reader::loadUntilHandover));
    }
  }

  @Test
  void aHandlerThatReadsTooMuchOrTooLittleIsFoundOut() throws Exception {
    for (int length : new int[] {0, 1, 3, 4}) {
      try (Destination destination = new Destination();
          Connection connection = Connection.giving(bytes(good()))) {
        StreamReader reader =
            new StreamReader(
                connection.near(),
                "none",
                List.of(destination.memory.block, destination.other.block),
                List.of(new SectionHandler("cpu", 1, 2, input -> input.skip(length))));
        StreamException e = assertThrows(StreamException.class, reader::loadUntilHandover);
        assertTrue(e.getMessage().contains("expected 7e (footer)"), e.getMessage());
      }
    }
  }

  @Test
  void aConnectionThatIsResetIsAStreamThatIsCut() throws Exception {
    try (Destination destination = new Destination();
        Connection connection = Connection.open()) {
      Connection.write(connection.far(), Arrays.copyOf(bytes(good()), 100));
      // Closed with unread bytes: the kernel answers with a reset.
      Connection.write(connection.near(), new byte[10]);
      connection.far().awaitReadable(10_000);
      connection.far().close();
      StreamException e =
          assertThrows(
              StreamException.class, () -> destination.reader(connection).loadUntilHandover());
      assertTrue(e.getMessage().contains("inside"), e.getMessage());
    }
  }

  /** Block ram of three pages and block vga1 of one, full of old bytes. */
  private static final class Destination implements AutoCloseable {
    final GuestMemory memory = new GuestMemory("ram", 3);
    final GuestMemory other = new GuestMemory("vga1", 1).fillPage(0, OLD);

    Destination() {
      memory.fillPage(0, OLD).fillPage(1, OLD).fillPage(2, OLD);
    }

    StreamReader reader(Connection connection) {
      return new StreamReader(
          connection.near(),
          "none",
          List.of(memory.block, other.block),
          List.of(new SectionHandler("cpu", 1, 2, SectionInput::be16)));
    }

    StreamReader load(byte[] stream) throws Exception {
      try (Connection connection = Connection.open()) {
        Connection.write(connection.far(), stream);
        connection.far().shutdownOutput();
        StreamReader reader = reader(connection);
        reader.loadUntilHandover();
        return reader;
      }
    }

    void check(int page, int zero) {
      byte[] expected = new byte[3 * 4096];
      Arrays.fill(expected, 0, 4096, (byte) OLD);
      Arrays.fill(expected, 4096, 8192, (byte) zero);
      Arrays.fill(expected, 8192, 12288, (byte) page);
      assertEquals(-1, Arrays.mismatch(expected, memory.bytes()));
      checkNothingElseChanged();
    }

    void checkNothingElseChanged() {
      byte[] old = new byte[4096];
      Arrays.fill(old, (byte) OLD);
      assertEquals(-1, Arrays.mismatch(old, 0, 4096, memory.bytes(), 0, 4096));
      assertEquals(-1, Arrays.mismatch(old, other.bytes()));
      memory.checkCanaries();
      other.checkCanaries();
    }

    @Override
    public void close() {
      memory.close();
      other.close();
    }
  }
}
