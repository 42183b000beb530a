package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** What QEMUs have sent, kept in files (their README says how), where no QEMU is. */
@Timeout(300)
class QemuStreamsTest {
  private static final Path FOLDER =
      Path.of(
          System.getProperty("tidemark.root"),
          "engine/src/test/resources/dev/tidemark/engine/stream/qemu");
  private static final long PAGES = 16;

  /** What the reader says to a stream, by the capability that was on. */
  private static final Map<String, String> REFUSED =
      Map.of(
          "compress", "ram record's flags: COMPRESS_PAGE (0x100)",
          "multifd", "multifd",
          "postcopy-ram", "command 3 (POSTCOPY_ADVISE)",
          "x-colo", "command 8 (ENABLE_COLO)",
          "x-ignore-shared", "subsection configuration/capabilities",
          "validate-uuid", "subsection configuration/uuid");

  static List<String> names() throws IOException {
    try (Stream<Path> files = Files.list(FOLDER)) {
      return files
          .map(file -> file.getFileName().toString())
          .filter(name -> name.endsWith(".bin"))
          .map(name -> name.replace(".bin", ""))
          .sorted()
          .toList();
    }
  }

  @ParameterizedTest
  @MethodSource("names")
  void isLoadedOrRefusedByName(String name) throws Exception {
    byte[] stream = Files.readAllBytes(FOLDER.resolve(name + ".bin"));
    String capability = name.substring(name.indexOf('-') + 1);
    try (GuestMemory expected = new GuestMemory("m0", PAGES);
        GuestMemory memory = new GuestMemory("m0", PAGES);
        Connection connection = Connection.giving(stream)) {
      memory.block.memory().fill((byte) 9);
      StreamReader reader =
          new StreamReader(connection.near(), "none", List.of(memory.block), List.of());
      String refusal = REFUSED.get(capability);
      if (refusal == null) {
        reader.loadUntilHandover();
        assertTrue(reader.description().orElseThrow().contains("globalstate"));
        expected.fillPage(1, 0x11);
        for (int i = 0; i < 4096; i++) {
          expected.page(3).set(JAVA_BYTE, i, (byte) (i % 251));
        }
        expected.page(15).set(JAVA_BYTE, 4095, (byte) 1);
        GuestMemory.assertSame(expected, memory);
        assertEquals(PAGES, reader.pagesRead() + reader.zeroPagesRead());
      } else {
        StreamException e = assertThrows(StreamException.class, reader::loadUntilHandover);
        assertTrue(e.getMessage().contains(refusal), e.getMessage());
        memory.checkCanaries();
      }
    }
  }
}
