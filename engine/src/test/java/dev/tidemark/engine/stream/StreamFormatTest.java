package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.HexFormat;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The bytes, spelled out from the format's description. */
class StreamFormatTest {
  @Test
  void theBytesAreThoseOfTheDescription() throws Exception {
    try (GuestMemory ram = new GuestMemory("ram", 3).fillPage(0, 0x11).fillPage(2, 0x22);
        GuestMemory vram = new GuestMemory("vram", 1)) {
      byte[] stream =
          Connection.capture(
              socket -> {
                StreamWriter writer = new StreamWriter(socket, new Throttle(0));
                writer.begin("none");
                writer.openReturnPath();
                writer.ping(0x01020304);
                writer.startRam(List.of(ram.block, vram.block));
                writer.beginRound();
                writer.pages(ram.block, 0, 3);
                writer.pages(vram.block, 0, 1);
                writer.endRound();
                writer.beginRound();
                writer.pages(vram.block, 0, 1);
                writer.pages(ram.block, 1, 1);
                writer.endRound();
                writer.endRam();
                writer.full("cpu", 1, 2, output -> output.be16(0xabcd));
                writer.eof();
                writer.description("{}");
              });
      String expected =
          """
          5145564d 00000003
          07 00000004 6e6f6e65
          08 0001 0000
          08 0002 0004 01020304
          01 00000002 03 72616d 00000000 00000004
          0000000000004004
          03 72616d 0000000000003000
          04 7672616d 0000000000001000
          0000000000000010
          7e 00000002
          02 00000002
          0000000000000008 03 72616d [11]
          0000000000001022 00
          0000000000002028 [22]
          0000000000000002 04 7672616d 00
          0000000000000010
          7e 00000002
          02 00000002
          0000000000000022 00
          0000000000001002 03 72616d 00
          0000000000000010
          7e 00000002
          03 00000002
          0000000000000010
          7e 00000002
          04 00000003 03 637075 00000001 00000002 abcd
          7e 00000003
          00
          06 00000002 7b7d
          """
              .replace("[11]", "11".repeat(4096))
              .replace("[22]", "22".repeat(4096))
              .replaceAll("\\s", "");
      assertEquals(expected, HexFormat.of().formatHex(stream));
    }
  }
}
