package dev.tidemark.bench.duel;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.HashSet;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

class BusyTest {
  private static Set<Long> children() {
    return ProcessHandle.current()
        .children()
        .filter(ProcessHandle::isAlive)
        .map(ProcessHandle::pid)
        .collect(Collectors.toSet());
  }

  @Test
  void startsSoManyAndLeavesNone() {
    Set<Long> before = children();
    Busy busy = new Busy(3);
    try (busy) {
      Set<Long> spinning = new HashSet<>(children());
      spinning.removeAll(before);
      assertEquals(3, spinning.size());
      assertEquals(3, busy.running());
    }
    assertEquals(0, busy.running());
    Set<Long> left = new HashSet<>(children());
    left.removeAll(before);
    assertEquals(Set.of(), left);
  }
}
