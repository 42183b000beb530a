package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Who may run the guest, whatever breaks and whenever. */
@Timeout(300)
class HandoverTest {
  private static final int PATIENCE = 200_000;
  private static final int FINAL = 99;

  private Connection connection;
  private GuestMemory source;
  private GuestMemory destination;
  private StreamWriter writer;
  private ReturnPath answers;

  @BeforeEach
  void connect() {
    connection = Connection.open();
    source = new GuestMemory("ram", 20).fillPage(3, 3);
    destination = new GuestMemory("ram", 20);
    writer = new StreamWriter(connection.near(), new Throttle(0));
    answers = new ReturnPath(connection.near());
  }

  @AfterEach
  void disconnect() {
    connection.close();
    source.close();
    destination.close();
  }

  private StreamReader reader(SectionHandler.Loader loader) {
    return new StreamReader(
        connection.far(),
        "none",
        List.of(destination.block),
        List.of(new SectionHandler("cpu", 0, 1, loader)));
  }

  /** The steps of the source, one a phase. */
  private final List<Runnable> phases =
      List.of(
          () -> writer.begin("none"),
          () -> writer.openReturnPath(),
          () -> ping(0),
          () -> writer.startRam(List.of(source.block)),
          () -> writer.beginRound(),
          () -> writer.pages(source.block, 0, 20),
          () -> writer.endRound(),
          () -> ping(1),
          () -> writer.endRam(),
          () -> writer.full("cpu", 0, 1, output -> output.be32(5)),
          () -> ping(FINAL),
          () -> writer.eof());

  private void ping(int id) {
    writer.ping(id);
    answers.awaitPong(id, PATIENCE);
  }

  @Test
  void theDestinationRunsOnlyAfterGo() throws Exception {
    for (int last = 0; last <= phases.size(); last++) {
      int phase = last;
      StreamReader reader = reader(SectionInput::be32);
      FutureTask<Void> load =
          Connection.inBackground(
              () -> {
                reader.loadUntilHandover();
                return null;
              });
      phases.subList(0, phase).forEach(Runnable::run);
      writer.flush();
      assertEquals(phase == phases.size(), writer.saidGo());
      connection.near().shutdownOutput();
      if (writer.saidGo()) {
        load.get();
        GuestMemory.assertSame(source, destination);
        reader.shut(0);
        assertEquals(0, answers.awaitShut(PATIENCE));
      } else {
        Throwable failure = assertThrows(ExecutionException.class, load::get).getCause();
        assertInstanceOf(StreamException.class, failure);
        assertTrue(failure.getMessage().contains("stream ended at byte"), failure.getMessage());
        if (phase == phases.size() - 1) {
          assertTrue(
              failure.getMessage().contains("the source has not said go"), failure.getMessage());
        }
        if (phase > 1) {
          assertEquals(1, answers.awaitShut(PATIENCE), "status of SHUT");
        }
      }
      disconnect();
      connect();
    }
  }

  /** What the destination says before it goes away, and what the source makes of it. */
  @Test
  void theSourceKnowsHowFarTheDestinationCame() {
    assertSourceFails("", false, "connection closed while waiting for PONG");
    assertSourceFails("0002", false, "connection closed while waiting for PONG");
    assertSourceFails("00020004", false, "connection closed while waiting for PONG");
    assertSourceFails("0001000400000001", false, "expected PONG 0, found SHUT 1");
    String pong = "0002000400000000";
    assertSourceFails(pong, false, "connection closed while waiting for PONG");
    assertSourceFails(pong + pong, false, "expected PONG 1, found PONG 0");
    assertSourceFails(pong + "0003", false, "connection closed while waiting for PONG");
    assertSourceFails(pong + "0003000c", false, "expected PONG, found REQ_PAGES_ID (type 3, of");
    assertSourceFails(pong + "0004000c", false, "expected PONG, found REQ_PAGES (type 4, of");
    assertSourceFails(pong + "00050000", false, "expected PONG, found RECV_BITMAP (type 5, of");
    assertSourceFails(pong + "00060004", false, "expected PONG, found RESUME_ACK (type 6, of");
    assertSourceFails(pong + "00070000", false, "turn off switchover-ack at the destination");
    assertSourceFails(pong + "00080000", false, "expected PONG, found message of type 8");
    assertSourceFails(pong + "00020005", false, "expected 4 bytes of data, found 5");
    pong += "0002000400000001";
    assertSourceFails(pong, false, "connection closed while waiting for PONG");
    assertSourceFails(pong + "0001000400000001", false, "expected PONG 99, found SHUT 1");
    pong += "0002000400000063";
    assertSourceFails(pong, true, "connection closed while waiting for SHUT");
    assertSourceFails(pong + "00010004000000", true, "connection closed while waiting for SHUT");
    assertSourceFails(pong + "0002000400000063", true, "expected SHUT, found PONG 99");
  }

  private void assertSourceFails(String said, boolean saidGo, String message) {
    Connection.write(connection.far(), HexFormat.of().parseHex(said));
    connection.far().shutdownOutput();
    StreamException e =
        assertThrows(
            StreamException.class,
            () -> {
              phases.forEach(Runnable::run);
              answers.awaitShut(PATIENCE);
            });
    assertEquals(saidGo, writer.saidGo(), e.getMessage());
    assertTrue(e.getMessage().contains(message), e.getMessage());
    disconnect();
    connect();
  }

  @Test
  void goCountsAsSaidEvenIfItCouldNotBeWritten() {
    phases.subList(0, 2).forEach(Runnable::run);
    writer.flush();
    connection.near().shutdownOutput();
    assertThrows(RuntimeException.class, writer::eof);
    assertTrue(writer.saidGo());
  }

  @Test
  void whatWaitsBeforeGoFailsBeforeGoIsSaid() {
    connection.near().shutdownOutput();
    writer.begin("none");
    assertThrows(RuntimeException.class, writer::eof);
    assertFalse(writer.saidGo());
  }

  @Test
  void aSilentDestinationIsGivenUp() {
    phases.subList(0, 2).forEach(Runnable::run);
    writer.ping(0);
    StreamException e = assertThrows(StreamException.class, () -> answers.awaitPong(0, 20));
    assertEquals("return path: no PONG in 20 ms", e.getMessage());
  }

  @Test
  void aSectionThatCannotBeLoadedReachesTheSourceBeforeGo() throws Exception {
    StreamReader reader =
        reader(
            input -> {
              throw new IllegalStateException("KVM_SET_REGS: EINVAL");
            });
    FutureTask<Void> load =
        Connection.inBackground(
            () -> {
              reader.loadUntilHandover();
              return null;
            });
    phases.subList(0, phases.size() - 2).forEach(Runnable::run);
    writer.ping(FINAL);
    StreamException e =
        assertThrows(StreamException.class, () -> answers.awaitPong(FINAL, PATIENCE));
    assertEquals(
        "return path: expected PONG 99, found SHUT 1: the destination gave up, and says there why",
        e.getMessage());
    assertFalse(writer.saidGo());
    Throwable failure = assertThrows(ExecutionException.class, load::get).getCause();
    assertEquals("KVM_SET_REGS: EINVAL", failure.getMessage());
  }
}
