package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.arguments;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Sections that come in pieces between the rounds of RAM. */
@Timeout(300)
class IterableSectionTest {
  /** What the source writes after the RAM section's start. */
  private interface Script extends Consumer<StreamWriter> {}

  /** A section whose pieces are 32 bits each. */
  private record Recorder(String name, int instance, int version, List<String> calls)
      implements IterableHandler {
    Recorder(String name) {
      this(name, 3, 1, new ArrayList<>());
    }

    @Override
    public void start() {
      calls.add("start");
    }

    @Override
    public void load(SectionInput input) {
      calls.add(Integer.toHexString(input.be32()));
    }

    @Override
    public void end() {
      calls.add("end");
    }
  }

  private static Consumer<SectionOutput> data(int value) {
    return out -> out.be32(value);
  }

  private static byte[] stream(Script script) throws Exception {
    try (GuestMemory memory = new GuestMemory("ram", 2)) {
      memory.fillPage(1, 7);
      return Connection.capture(
          socket -> {
            StreamWriter writer = new StreamWriter(socket, new Throttle(0));
            writer.begin("none");
            writer.startRam(List.of(memory.block));
            writer.beginRound();
            writer.pages(memory.block, 1, 1);
            writer.endRound();
            script.accept(writer);
            writer.flush();
          });
    }
  }

  private static void load(byte[] stream, List<Recorder> recorders) throws Exception {
    try (GuestMemory memory = new GuestMemory("ram", 2);
        Connection connection = Connection.giving(stream)) {
      new StreamReader(connection.near(), "none", List.of(memory.block), recorders, List.of())
          .loadUntilHandover();
      assertEquals(7, memory.bytes()[4096]);
    }
  }

  private static byte[] good() throws Exception {
    return stream(
        writer -> {
          int one = writer.start("one", 3, 1, data(0xa));
          int two = writer.start("two", 3, 1, data(0xb));
          writer.part(two, data(0xc));
          writer.part(one, data(0xd));
          writer.part(two, data(0xe));
          writer.endRam();
          writer.end(one, data(0xf));
          writer.end(two, data(0x10));
          writer.eof();
        });
  }

  @Test
  void piecesComeToTheirHandlersInOrder() throws Exception {
    List<Recorder> recorders = List.of(new Recorder("two"), new Recorder("one"));
    load(good(), recorders);
    assertEquals(List.of("start", "b", "c", "e", "10", "end"), recorders.get(0).calls());
    assertEquals(List.of("start", "a", "d", "f", "end"), recorders.get(1).calls());
  }

  @Test
  void aStreamThatIsCutAnywhereIsNotTaken() throws Exception {
    byte[] good = good();
    for (int length = good.length - 200; length < good.length; length++) {
      byte[] cut = Arrays.copyOf(good, length);
      StreamException e =
          assertThrows(
              StreamException.class,
              () -> load(cut, List.of(new Recorder("two"), new Recorder("one"))));
      assertTrue(e.getMessage().contains("stream ended at byte " + length), e.getMessage());
    }
  }

  static Stream<Arguments> wrong() {
    return Stream.of(
        arguments(
            (Script) w -> w.start("three", 3, 1, data(1)),
            "section start: expected ram or one of [one], found three/3"),
        arguments(
            (Script) w -> w.start("one", 4, 1, data(1)),
            "section start: expected ram or one of [one], found one/4"),
        arguments(
            (Script) w -> w.start("one", 3, 2, data(1)),
            "version of section one: expected 1, found 2"),
        arguments(
            (Script)
                w -> {
                  w.start("one", 3, 1, data(1));
                  w.start("one", 3, 1, data(1));
                },
            "start of section one: expected it once, found it again"),
        arguments((Script) w -> w.part(9, data(1)), "section id: expected 2, found 9"),
        arguments((Script) w -> w.end(3, data(1)), "section id: expected 2, found 3"),
        arguments(
            (Script)
                w -> {
                  int id = w.start("one", 3, 1, data(1));
                  w.end(id, data(2));
                  w.part(id, data(3));
                },
            "part of section one: expected none after its end"),
        arguments(
            (Script)
                w -> {
                  w.endRam();
                  w.start("one", 3, 1, data(1));
                },
            "section start: expected it before the ram section's end"),
        arguments(
            (Script)
                w -> {
                  w.endRam();
                  w.eof();
                },
            "end of file: section one has not ended"),
        arguments(
            (Script)
                w -> {
                  w.start("one", 3, 1, data(1));
                  w.endRam();
                  w.full("cpu", 0, 1, data(1));
                },
            "full section: expected it after the end of section one"),
        arguments(
            (Script) w -> w.start("one", 3, 1, out -> out.be16(1)),
            "after a section's data: expected 7e (footer), found 0x0"));
  }

  @ParameterizedTest
  @MethodSource("wrong")
  void whatIsWrongIsNamed(Script script, String message) throws Exception {
    byte[] stream = stream(script);
    StreamException e =
        assertThrows(StreamException.class, () -> load(stream, List.of(new Recorder("one"))));
    assertTrue(e.getMessage().contains(message), e.getMessage());
  }

  @Test
  void namesAreCheckedBeforeAnythingIsRead() throws Exception {
    for (List<Recorder> wrong :
        List.of(
            List.of(new Recorder("one"), new Recorder("one")),
            List.of(new Recorder("ram", 0, 4, new ArrayList<>())),
            List.of(new Recorder("")))) {
      assertThrows(IllegalArgumentException.class, () -> load(new byte[0], wrong));
    }
  }
}
